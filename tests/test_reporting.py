"""The verbs report and compare, on folders of evaluated runs."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess

import pytest

from evaluated_runs import make_run
from lesion_triage.cli import main
from lesion_triage.evaluate.pdf import BROWSERS


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same test cases, the second with the better model."""
    home = tmp_path_factory.mktemp("experiments") / "runs"
    return make_run(home / "a", skill=1.0), make_run(home / "b", seed=1, skill=3.0)


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "compared"
    assert main(["compare", *map(str, runs), "--out", str(out), "--names"]) == 0
    return out


@pytest.fixture(scope="module")
def rendered(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "rendered"
    first, second = map(str, runs)
    assert main(["report", second, "--out", str(out), "--compare-with", first]) == 0
    return out


def test_comparison_says_how_far_apart_they_are_and_who_changed_side(compared):
    found = json.loads((compared / "comparison.json").read_text())
    differences = {one["name"]: one for one in found["compared"]["differences"]}
    assert (found["cases"], found["positives"]) == (120, 40)
    assert differences["auroc"]["difference"]["low"] > 0
    assert differences["sensitivity"]["second"] > differences["sensitivity"]["first"]
    positives = found["compared"]["positives"]
    assert positives["second_only"] > positives["first_only"]
    assert sum(one["cases"] for one in found["crossings"]) == 120
    text = (compared / "comparison.md").read_text()
    assert f"| AUROC | {differences['auroc']['first']:.3f} |" in text
    assert "makes the test split a validation split" in text


def test_nothing_but_the_table_that_was_asked_for_names_a_case(compared):
    with (compared / "changed_cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all(row["case_id"].startswith("test-") for row in rows)
    found = json.loads((compared / "comparison.json").read_text())
    both = found["compared"]["positives"], found["compared"]["negatives"]
    assert len(rows) == sum(one["first_only"] + one["second_only"] for one in both)
    for name in ("comparison.json", "comparison.md", "index.html"):
        text = (compared / name).read_text()
        assert not any(f"{row['case_id']}<" in text or f'"{row["case_id"]}"' in text for row in rows)


def test_page_of_a_comparison_loads_nothing(compared):
    text = (compared / "index.html").read_text()
    assert "default-src 'none'; img-src data:" in text
    assert text.count("src=") == text.count('src="data:image/png;base64,') == 2


def test_report_is_written_anew_with_the_comparison_and_the_run_is_left_alone(runs, rendered):
    text = (rendered / "index.html").read_text()
    assert 'id="comparison"' in text
    assert "Without the picture" in text
    found = json.loads((rendered / "results.json").read_text())
    assert found["parity"] == {"decision_flips": 0}
    assert [one["name"] for one in found["metadata"]] == ["age_sex_site", "with_source_and_gaps"]
    assert sorted(path.name for path in (runs[1] / "report").iterdir()) == ["results.json"]
    assert not (runs[1] / "test_openings.jsonl").exists()


def test_run_that_was_measured_on_other_cases_is_compared_on_those_that_both_have(runs, tmp_path, capsys):
    fewer = make_run(tmp_path / "experiments" / "runs" / "fewer", cases=90)
    assert main(["compare", str(runs[0]), str(fewer)]) == 0
    said = capsys.readouterr().out
    assert "90 cases of split test" in said
    assert "Left out: 30 only in A's test split." in said


def test_runs_without_a_common_case_are_not_compared(runs, tmp_path, capsys):
    other = make_run(tmp_path / "experiments" / "runs" / "other", photographs=2)
    assert main(["compare", str(runs[0]), str(other)]) == 2
    assert "share 0 test cases" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "RUN"], "give --out DIR"),
        (["report", "RUN", "--compare-with", "RUN", "--pdf", "x.pdf"], "give --out DIR"),
        (["report", "RUN", "--out", "RUN/report/again"], "choose a folder outside it"),
        (["report", "RUN", "--out", "OTHER/report"], "choose a folder outside it"),
        (["compare", "RUN", "OTHER", "--out", "OTHER/report"], "choose a folder outside it"),
        (["compare", "RUN", "OTHER", "--out", "RUN/bundle/compared"], "own bundle is never overwritten"),
        (["transfer", "BUNDLE", "CONFIG", "--out", "RUN/report"], "own report is never overwritten"),
        (["robustness", "RUN", "--out", "RUN/report"], "own report is never overwritten"),
        (["compare", "RUN", "OTHER", "--out", "RUN/config.yaml/compared"], "Not a directory"),
        (["report", "RUN", "--out", "RUN/config.yaml/again"], "Not a directory"),
        (["report", "RUN/bundle/none", "--out", "OUT"], "expected the folder of an evaluated run"),
        (["compare", "RUN", "RUN", "--names"], "give --out DIR"),
        (["compare", "RUN", "OUT"], "expected the folder of an evaluated run"),
        (["report", "RUN", "--pdf", "OUT/x.pdf"], "expected a report's page"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(runs, tmp_path, capsys, words, said):
    places = {"RUN": str(runs[0]), "OTHER": str(runs[1]), "OUT": str(tmp_path)}
    told = []
    for word in words:
        name, slash, rest = word.partition("/")
        told.append(f"{places.get(name, name)}{slash}{rest}")
    assert main(told) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_another_bundle_in_a_run_folder_is_not_taken_for_the_one_that_was_evaluated(runs, tmp_path, capsys):
    """As where a site's own certificate is kept beside the bundle."""
    run = shutil.copytree(runs[0], tmp_path / "run")
    shutil.copytree(run / "bundle", run / "clinic-a")
    assert main(["compare", str(run / "clinic-a"), str(runs[1])]) == 2
    assert "clinic-a: expected the folder of an evaluated run" in capsys.readouterr().err
    assert main(["compare", str(run / "bundle"), str(runs[1])]) == 0


@pytest.mark.skipif(
    not any(map(shutil.which, BROWSERS)), reason="no browser: printing to PDF was NOT tested; `make browser`"
)
def test_report_is_printed(rendered, runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "run")
    shutil.copy(rendered / "index.html", tmp_path / "run" / "report" / "index.html")
    pdf = tmp_path / "report.pdf"
    assert main(["report", str(tmp_path / "run"), "--pdf", str(pdf)]) == 0
    assert pdf.read_bytes().startswith(b"%PDF")
    if shutil.which("pdftotext"):
        text = subprocess.run(["pdftotext", str(pdf), "-"], capture_output=True, check=True, text=True).stdout
        for words in (
            "Operating point",
            "Subgroups",
            "Decision curve",
            "Comparison of two bundles",
            "Limits",
        ):
            assert words in text


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"parity"'])
@pytest.mark.parametrize("verb", ["report", "compare"])
def test_results_that_are_none_end_in_a_sentence(runs, tmp_path, capsys, verb, content):
    broken = tmp_path / "run"
    shutil.copytree(runs[0], broken)
    (broken / "report" / "results.json").write_text(content)
    paths = [broken, *([runs[1]] if verb == "compare" else [])]
    assert main([verb, *map(str, paths), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be read as results" in capsys.readouterr().err
