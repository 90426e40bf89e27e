"""The verb ``plan``: what it prints, draws and writes, and how it refuses."""

from __future__ import annotations

import argparse
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import beta, binom

from lesion_triage.cli import main
from lesion_triage.clinic import plan
from lesion_triage.errors import CalibrationError, ConfigError

QUICK = ("--misses", 1, "--positives", 59, "--true-sensitivity", 0.99)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "planning.md"


def parsed(*words):
    parser = argparse.ArgumentParser()
    plan.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def printed(capsys, *words):
    assert plan.main(parsed(*words)) == 0
    return capsys.readouterr().out


def section(text, number):
    """Rows of a printed table, split into cells, without its title and its sentence."""
    (found,) = re.findall(rf"^{number}\. [^\n]*\n\n(.*?)\n\nRead:", text, re.MULTILINE | re.DOTALL)
    return [line.split() for line in found.splitlines()]


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(2, 1, 120), rng.normal(0, 1, 300)])
    path = tmp_path / "scores.csv"
    shares = 1 / (1 + np.exp(-scores))
    rows = [f"{score:.6f},{'True' if place < 120 else 'False'}" for place, score in enumerate(shares)]
    path.write_text("score,needs_in_person\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_default_answers_the_four_questions_of_a_clinic(capsys):
    text = printed(capsys, "--target", "0.95", "--confidence", "0.95")
    steps = section(text, 1)
    assert [(row[0], row[1]) for row in steps[1:8]] == [
        ("0", "59"), ("1", "93"), ("2", "124"), ("3", "153"), ("4", "181"), ("5", "208"), ("6", "234"),
    ]  # fmt: skip
    assert [row[0] for row in section(text, 2)[1:]] == ["59", "93", "124", "181", "286", "482", "855"]
    assert text.count("\nRead: ") == 3
    assert "4. " not in text


def test_the_auroc_unless_another_is_given_is_that_of_the_recorded_best_recipe():
    recorded = sorted((PAGE.parents[1] / "experiments" / "ham10000-best").glob("seed-*.json"))
    found = [json.loads(path.read_text())["slices"][0]["metrics"]["auroc"]["value"] for path in recorded]
    assert len(found) == 3
    assert parsed().auroc == round(sum(found) / 3, 3)


def test_printed_numbers_are_those_of_the_laws(capsys):
    text = printed(capsys, "--positives", 140, "--true-sensitivity", 0.98, "--misses", 0)
    law = beta(138, 3)
    row = section(text, 2)[-1]
    assert row[:2] == ["140", "2"]
    assert row[2:6] == [f"{value:.3f}" for value in (law.mean(), *law.ppf([0.05, 0.5, 0.95]))]
    powers = section(text, 3)
    assert powers[1] == ["140", f"{binom.cdf(2, 140, 0.02):.3f}"]


def test_too_few_cases_have_a_row_that_says_so(capsys):
    text = printed(capsys, "--positives", 40, "--groups", 2)
    assert section(text, 2)[-1][:3] == ["40", "none", "-"]
    assert section(text, 3)[1] == ["40", *["0.000"] * 4]
    assert section(text, 4)[-1] == ["40", "-", "-", "-", "-"]


def test_groups_get_a_table_and_the_number_that_separate_thresholds_take(capsys):
    text = printed(capsys, "--groups", 3)
    assert [row[0] for row in section(text, 4)[1:]][:2] == ["59", "93"]
    assert "takes at least 80 positive cases in each" in " ".join(text.split())


def test_a_share_of_follow_up_adds_how_soon_a_fall_is_noticed(capsys, tmp_path):
    assert "notices" not in printed(capsys, "--positives", 59)
    path = tmp_path / "plan.json"
    text = printed(capsys, "--positives", 59, "--follow-up", 0.5, "--json", path)
    rows = [row for row in section(text, 4) if row[0] == "0.5"]
    written = json.loads(path.read_bytes())["alarm_delays"]
    assert [row[1] for row in rows] == ["0.9", "0.85", "0.8"]
    assert [row["sensitivity"] for row in written] == [0.9, 0.85, 0.8]
    assert [row[2:] for row in rows] == [
        [str(row[name]) for name in ("median", "late", "median_after_good", "late_after_good")]
        for row in written
    ]


def test_a_fall_below_a_low_target_has_a_row_too(capsys):
    text = printed(capsys, "--target", 0.5, "--positives", 59, "--follow-up", 1)
    assert [row[:2] for row in section(text, 4)[1:]] == [["1", "0.25"]]


def test_own_scores_replace_the_normal_ones(capsys, table):
    text, normal = printed(capsys, *QUICK, "--scores", table), printed(capsys, *QUICK)
    assert "120 positive and 300 negative cases" in text
    assert [section(text, number) == section(normal, number) for number in (1, 2, 3)] == [True, False, True]


def test_positive_cases_of_one_patient_are_one_unit_with_the_lowest_score(capsys, table, tmp_path):
    """As the certificate will count them: a patient is missed if any positive case is."""
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    positive, negative = rows[:120], rows[120:]
    named = [
        (score, needs, f"p{place // 2}" if place < 60 else "")
        for place, (score, needs) in enumerate(positive)
    ]
    lowest = [min(pair) for pair in zip(positive[:60:2], positive[1:60:2], strict=True)]
    said = []
    for name, lines in (
        ("patients", [*named, *((*row, "p0") for row in negative)]),
        ("lowest", [*lowest, *positive[60:], *negative]),
    ):
        head = "score,needs_in_person" + ",patient_id" * (name == "patients")
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join([head, *(",".join(line) for line in lines)]) + "\n")
        said.append(printed(capsys, *QUICK, "--scores", path).replace(name, ""))
    assert "90 positive and 300 negative cases" in said[0]
    assert said[0] == said[1]


@pytest.mark.parametrize("verb", [("plan", "--scores"), ("queue", "--threshold", "0.5")])
def test_table_that_cannot_be_used_is_one_sentence(capsys, tmp_path, verb):
    (tmp_path / "scores.csv").write_text("score,needs_in_person\n7,True\n0.2,False\n")
    assert main([*verb, str(tmp_path / "scores.csv")]) == 2
    error = capsys.readouterr().err
    assert "scores.csv, line 2: the score is not in [0, 1]" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", 1], "between 0 and 1, found 1.0"),
        (["--target", "nan"], "found nan"),
        (["--confidence", 0], "found 0.95 and 0.0"),
        (["--positives", 0], "expected 1 to 100000 positive cases, found 0"),
        (["--positives", -3], "found -3"),
        (["--misses", -1], "expected 0 to 1000 allowed misses, found -1"),
        (["--true-sensitivity", 1.2], "true sensitivity between 0 and 1, found 1.2"),
        (["--auroc", 0.3], "AUROC of at least 0.5 and below 1, found 0.3"),
        (["--groups", 0], "at least 1 group, found 0"),
        (["--target", 0.99999], "expected 1 to 100000 positive cases, found 299572"),
    ],
)
def test_number_out_of_range_is_one_sentence_and_prints_no_table(capsys, words, message):
    with pytest.raises(CalibrationError, match=message) as caught:
        plan.main(parsed(*words))
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_json_holds_what_the_tables_hold(capsys, tmp_path):
    path = tmp_path / "plan.json"
    text = printed(capsys, "--groups", 2, "--positives", 40, 93, "--json", path)
    document = json.loads(path.read_bytes())
    assert [step["positives"] for step in document["steps"]][:3] == [59, 93, 124]
    none, found = document["new_threshold"]
    assert none == {"positives": 40, "forecast": None}
    assert f"{found['forecast']['specificity']['mean']:.3f}" == section(text, 2)[-1][6]
    truth = document["existing_threshold"][-1]
    assert truth["true_sensitivity"] == 0.99
    assert truth["power"][1]["power"] == pytest.approx(binom.cdf(1, 93, 0.01), abs=1e-12)
    assert [row["positives"] for row in document["joint"]] == [40, 93]


@pytest.mark.parametrize("option", ["--json", "--figure"])
def test_file_that_cannot_be_written_is_one_sentence(tmp_path, option):
    with pytest.raises(ConfigError, match=f"{option} .*none/file: cannot be written"):
        plan.main(parsed(option, tmp_path / "none" / "file", *QUICK))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--misses", 0, "--positives", 40, "--true-sensitivity", 0.9),
        ("--true-sensitivity", 0.98, 0.983, 0.986, 0.99, 0.993, 0.996, "--positives", 59),
        ("--target", 0.8, "--confidence", 0.6, "--misses", 40, "--positives", 50),
    ],
    ids=["default", "little to draw", "more lines than colours", "other target"],
)
def test_figure_is_a_picture_of_its_stated_size_with_something_on_it(capsys, tmp_path, words):
    path = tmp_path / "plan.png"
    printed(capsys, *words, "--figure", path)
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        assert picture.size == (1650, 1200)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


def run_without(modules, words):
    code = (
        "import sys\n"
        f"for name in {modules!r}: sys.modules[name] = None\n"
        "import argparse\n"
        "from lesion_triage.clinic import plan\n"
        "from lesion_triage.errors import LesionTriageError\n"
        "parser = argparse.ArgumentParser(); plan.add_arguments(parser)\n"
        "try: plan.main(parser.parse_args(sys.argv[1:]))\n"
        "except LesionTriageError as error: sys.exit(f'{type(error).__name__}: {error}')\n"
    )
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


def test_tables_need_no_training_library_and_no_matplotlib():
    """scipy too: the package stands on numpy alone."""
    blocked = ("torch", "torchvision", "timm", "sklearn", "scipy", "mlflow", "onnx", "matplotlib")
    done = run_without(blocked, [*map(str, QUICK), "--groups", "2"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "4. The target for each of 2 groups" in done.stdout


def test_figure_without_matplotlib_is_refused_in_one_sentence_before_any_work(tmp_path):
    done = run_without(("matplotlib",), ["--figure", str(tmp_path / "plan.png")])
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("ConfigError: --figure ")
    assert "matplotlib is not installed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_text_uses_no_word_that_names_a_condition_or_promises_health(capsys):
    words = r"(?<![a-z])(benign|malignan|cancer|melanom|diagnos|safe|healthy|clear)"
    assert re.findall(words, printed(capsys, *QUICK, "--groups", 2), re.IGNORECASE) == []


def test_page_for_clinics_shows_what_its_commands_print(capsys):
    """The shown tables to the letter, and whatever the prose beneath says to three decimals."""
    page = PAGE.read_text(encoding="utf-8")
    shown = r"```sh\nlesion-triage plan ([^\n]*)\n```\n\n(?:<!--.*?-->\n)?```text\n(.*?)```\n(.*?)(?=```|\Z)"
    found = re.findall(shown, page, re.DOTALL)
    assert len(found) == page.count("```sh") - 1 == 4  # the loop over targets: the next test
    for words, table, prose in found:
        text = printed(capsys, *shlex.split(words))
        assert table.rstrip() in text, words
        numbers = re.findall(r"\d\.\d{3}", prose)
        assert [number for number in numbers if number not in text] == [], words


def test_page_for_clinics_says_what_the_loop_over_targets_prints(capsys):
    rows = re.findall(
        r"^\| (0\.9\d) \| (\d+) \| ([\w ]+) \| ([\d.-]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert [row[0] for row in rows] == ["0.90", "0.95", "0.97", "0.98", "0.99"]
    for target, fewest, misses, specificity in rows:
        text = printed(capsys, "--target", target, "--misses", 0, "--positives", 233)
        assert section(text, 1)[1][:2] == ["0", fewest]
        new = section(text, 2)[1]
        assert new[:2] == ["233", {"not certifiable": "none"}.get(misses, misses)]
        assert new[6 if specificity != "-" else 2] == specificity
