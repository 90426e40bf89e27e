"""The verb ``queue``: from a clinic's table to waits, a sentence, and lines that a configuration takes."""

from __future__ import annotations

import argparse
import json
import math
import re
from io import BytesIO

import numpy as np
import pytest
import yaml
from PIL import Image

import tiny_bundle as tiny
from lesion_triage import cli
from lesion_triage.bundle.schema import Grouping
from lesion_triage.bundle.store import open_bundle
from lesion_triage.calibrate import queue_figure, queue_report
from lesion_triage.calibrate.policy_fit import band_limits
from lesion_triage.calibrate.queue_pool import GROUPS
from lesion_triage.calibrate.queueing import STATISTICS, Discipline
from lesion_triage.clinic import queue
from lesion_triage.clinic.scores import read_scores
from lesion_triage.config import Calibrate
from lesion_triage.errors import LesionTriageError

QUICK = ["--cases", "2000", "--load", "0.5"]
"""An answer in a blink; none of the promises below rests on its precision."""


@pytest.fixture
def table(tmp_path):
    """A hundred cases: 10 positive, 1 of them below 0.5; 30 of the others at 0.5 or above, 2 not gradable."""
    path = tmp_path / "scores.csv"
    rows = [(0.95 - number / 50, "True") for number in range(9)] + [(0.2, "yes")]
    rows += [(0.5 + number / 100, "False") for number in range(30)]
    rows += [(number / 200, "0") for number in range(58)] + [("", "no")] * 2
    lines = [f"case {number},{score},{outcome},x" for number, (score, outcome) in enumerate(rows)]
    path.write_text("\n".join(["name,score,needs_in_person,else", *lines]) + "\n", encoding="utf-8")
    return path


def run_study(*words):
    parser = argparse.ArgumentParser()
    queue.add_arguments(parser)
    return queue.run_study(parser.parse_args([str(word) for word in words]))


def test_table_is_read_with_an_empty_score_going_up_and_other_columns_ignored(table):
    scores, positive = read_scores(table)
    assert scores.size == positive.size == 100
    assert int(positive.sum()) == 10
    assert np.isposinf(scores).tolist() == [False] * 98 + [True] * 2
    assert scores[:2] == pytest.approx([0.95, 0.93])


def test_cases_of_one_class_are_refused_in_one_sentence(tmp_path, capsys):
    path = tmp_path / "scores.csv"
    path.write_text("score,needs_in_person\n0.5,0\n0.6,0\n", encoding="utf-8")
    assert cli.main(["queue", str(path), "--threshold", "0.5", *QUICK]) == 2
    error = capsys.readouterr().err
    assert "found 0 that need an in-person visit and 2 that do not" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--load", "1.0"], "the load is 1.0"),
        (["--readers", "0"], "expected 1 to 10,000 readers, found 0"),
        (["--prevalence", "0"], "the prevalence is 0.0"),
        (["--minutes-per-case", "nan"], "a reading takes nan minutes"),
        (["--deadline-hours", "2", "-1"], "the deadlines are [2.0, -1.0] hours"),
        (["--deadline-hours", "nan"], "the deadlines are [nan] hours"),
        (["--p99-limit", "0.9"], "the limit of the p99 is 0.9"),
        (["--band-shares", "0.5", "0.4", "0.3"], "sum to less than 1"),
        (["--drawn-auroc", "0.9"], "give either a table SCORES.csv or --drawn-auroc A"),
        (["--json", "nowhere/queue.json"], "--json nowhere/queue.json: cannot be written"),
        (["--figure", "nowhere/queue.png"], "--figure nowhere/queue.png: cannot be written"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_in_one_sentence(table, capsys, words, sentence):
    assert cli.main(["queue", str(table), "--threshold", "0.5", *QUICK, *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("sensitivity", ["0", "1.1", "nan"])
def test_a_sensitivity_that_is_no_share_is_refused(table, sensitivity):
    with pytest.raises(LesionTriageError, match="expected a sensitivity"):
        run_study(table, "--sensitivity", sensitivity, *QUICK)


@pytest.mark.parametrize(("sensitivity", "missed"), [(1.0, 0), (0.9, 1), (0.85, 1), (0.8, 2), (0.1, 9)])
def test_a_sensitivity_is_reached_by_the_highest_threshold_that_does(table, sensitivity, missed):
    pool = run_study(table, "--sensitivity", sensitivity, *QUICK).pool
    assert int(pool.group_masks()["missed_positives"].sum()) == missed


def test_without_a_bundle_the_bands_are_those_that_calibrate_would_set(table):
    pool = run_study(table, "--threshold", 0.5, *QUICK).pool
    assert pool.band_limits == band_limits(pool.scores, Calibrate().band_shares, 0.5)
    assert pool.ungradable_band == 1


def test_a_bundle_gives_threshold_bands_and_the_place_of_the_ungradable(table, tmp_path):
    policy = tiny.policy(threshold=0.3, band_limits=(0.9, 0.6, 0.2), ungradable_band=2)
    folder = tiny.make(
        tmp_path / "bundle", threshold=0.3, band_limits=(0.9, 0.6, 0.2), ungradable_band=2
    ).folder
    study = run_study(table, "--bundle", folder, *QUICK)
    assert (study.pool.threshold, study.pool.band_limits) == (0.3, policy.band_limits)
    assert study.pool.bands()[-2:].tolist() == [2, 2]
    scored = study.pool.scores[:98]
    expected = [np.mean(scored >= 0.9), np.mean((scored < 0.9) & (scored >= 0.6))]
    assert study.band_shares[:2] == pytest.approx(expected, abs=1e-4)
    others = run_study(table, "--bundle", folder, "--band-shares", 0.2, 0.2, 0.2, *QUICK)
    assert others.pool.band_limits == band_limits(others.pool.scores, (0.2, 0.2, 0.2), 0.3)
    assert others.band_shares == (0.2, 0.2, 0.2)


def test_a_bundle_with_thresholds_for_groups_says_that_the_lowest_is_taken(table, tmp_path, capsys):
    grouping = Grouping(by="sex", thresholds={"female": 0.6, "male": 0.5})
    folder = tiny.make(tmp_path / "bundle", threshold=0.5, groupings=(grouping,)).folder
    assert open_bundle(folder).policy.groupings
    assert cli.main(["queue", str(table), "--bundle", str(folder), *QUICK]) == 0
    assert "the lowest threshold is used for every case" in " ".join(capsys.readouterr().out.split())


def test_every_order_is_simulated_without_and_the_two_with_a_tail_also_with_every_deadline(table):
    study = run_study(table, "--threshold", 0.5, "--deadline-hours", 2, 1, 2, *QUICK)
    deadlines = (math.inf, 60.0, 120.0)
    assert list(study.outcomes) == [
        Discipline("first_come"),
        Discipline("binary_flag"),
        *(Discipline("four_bands", deadline) for deadline in deadlines),
        *(Discipline("score_order", deadline) for deadline in deadlines),
    ]


def test_the_report_ends_with_lines_that_a_configuration_takes(table, capsys):
    words = ["--threshold", "0.5", "--band-shares", "0.2", "0.2", "0.2", "--p99-limit", "9"]
    assert cli.main(["queue", str(table), *words, *QUICK]) == 0
    out = capsys.readouterr().out
    written = yaml.safe_load(out[out.index("calibrate:") :])
    taken = Calibrate.model_validate(written["calibrate"])
    assert taken.band_shares == (0.2, 0.2, 0.2)
    assert taken.deadline_hours is None
    assert "without a deadline the p99 of all cases is within 9 times" in out


def test_the_deadline_proposed_is_the_longest_within_the_limit(table):
    words = (table, "--threshold", 0.5, "--deadline-hours", 0.05, 0.5, 1, 2, *QUICK)
    found = run_study(*words)
    ratios = {
        discipline.deadline_minutes: waits["all", "p99"].relative.value
        for discipline, waits in found.outcomes.items()
        if discipline.order == "four_bands"
    }
    for limit in (1.01, 1.2, 1.5, 3.0):
        expected = max(deadline for deadline, ratio in ratios.items() if ratio <= limit)
        proposed = run_study(*words, "--p99-limit", limit).proposed()
        assert proposed == Discipline("four_bands", expected)


def test_a_deadline_is_proposed_only_if_one_was_short_enough(table, capsys):
    words = ["--threshold", "0.5", "--deadline-hours", "3", "--p99-limit", "1"]
    assert cli.main(["queue", str(table), *words, *QUICK]) == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out[out.index("calibrate:") :])["calibrate"]["deadline_hours"] is None
    assert "no deadline that was tried keeps the p99 of all cases within 1 times" in out


def test_the_sentence_says_what_a_flag_does_to_those_it_misses(table, capsys):
    study = run_study(table, "--threshold", 0.5, *QUICK)
    text = " ".join(" ".join(queue_report.report_lines(study)).split())
    relative = study.outcomes[Discipline("binary_flag")]["missed_positives", "mean"].relative
    found = re.search(r"misses wait ([\d.]+) times as long as without any system", text)
    assert float(found[1]) == pytest.approx(relative.value, abs=0.005)
    assert relative.value > 1


def test_a_threshold_that_nearly_all_reach_is_told_in_plain_numbers(table):
    study = run_study(table, "--threshold", "0.001", "--prevalence", "0.6", *QUICK)
    text = " ".join(" ".join(queue_report.report_lines(study)).split())
    assert "Of the arriving cases 99.6 % are referred" in text
    assert re.search(r"\de[+-]\d", text) is None


def test_where_no_positive_is_missed_nothing_is_claimed_of_missed_ones(table):
    study = run_study(table, "--threshold", 0.1, *QUICK)
    text = " ".join(" ".join(queue_report.report_lines(study)).split())
    assert "the wait of missed cases cannot be estimated; in use there will be some." in text
    assert not any(group == "missed_positives" for group, _ in study.outcomes[Discipline("four_bands")])
    assert Image.open(BytesIO(queue_figure.draw(study))).format == "PNG"


def test_json_holds_what_was_asked_and_every_number_with_its_error(table, tmp_path):
    path = tmp_path / "queue.json"
    words = ["--threshold", "0.5", "--readers", "2", "--prevalence", "0.05", "--json", str(path)]
    assert cli.main(["queue", str(table), *words, *QUICK]) == 0
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["load"], document["readers"], document["prevalence"]) == (0.5, 2, 0.05)
    assert document["cases_in_table"] == {
        "all": 100,
        "positives": 10,
        "referred_positives": 9,
        "missed_positives": 1,
        "negatives": 90,
    }
    assert sum(document["share_in_band"]) == pytest.approx(1)
    assert len(document["waits"]) == 10 * len(GROUPS) * len(STATISTICS)
    for row in document["waits"]:
        assert row["minutes"] >= 0
        assert row["standard_error_minutes"] >= 0
        if row["order"] == "first_come":
            assert row["relative"] == pytest.approx(1)


def test_the_figure_is_a_picture(table, tmp_path):
    path = tmp_path / "queue.png"
    assert cli.main(["queue", str(table), "--threshold", "0.5", "--figure", str(path), *QUICK]) == 0
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000


def test_long_waits_are_told_in_hours(table):
    words = (table, "--threshold", 0.5, *QUICK)
    minutes, hours = (
        list(queue_report.report_lines(run_study(*words, "--minutes-per-case", of))) for of in (5, 300)
    )
    assert "Mean wait, minutes" in minutes
    assert "Mean wait, hours" in hours


def test_drawn_scores_need_no_table_and_have_the_wished_prevalence():
    study = run_study("--drawn-auroc", 0.9, "--prevalence", 0.2, "--sensitivity", 0.95, *QUICK)
    assert study.pool.positive.mean() == pytest.approx(0.2)
    assert study.pool.group_masks()["referred_positives"].sum() == pytest.approx(0.95 * 4000)


def test_the_report_uses_no_word_that_could_be_read_as_a_finding(table):
    study = run_study(table, "--threshold", 0.5, *QUICK)
    words = r"(?<![a-z])(benign|malignan|cancer|melanom|diagnos|safe|healthy|clear)"
    assert re.findall(words, "\n".join(queue_report.report_lines(study)), re.IGNORECASE) == []
