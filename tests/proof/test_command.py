"""The verb from end to end on few draws: page, figures, numbers, tracking, and the exit status."""

from __future__ import annotations

import argparse
import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from lesion_triage.bundle.document import canonical_json
from lesion_triage.errors import RunError
from lesion_triage.proof import command, page
from lesion_triage.proof.findings import prove

DRAWS = 100


@pytest.fixture(scope="module")
def found(pool):
    """At so few draws the weak negative controls cannot show that they fail."""
    return prove(pool, DRAWS, seed=2, with_peer=False)


@pytest.fixture(scope="module")
def unbroken(found):
    return replace(
        found,
        in_the_pool=tuple(one for one in found.in_the_pool if one.passed),
        in_clusters=tuple(one for one in found.in_clusters if one.passed),
        jointly=tuple(one for one in found.jointly if one.passed),
        in_use=tuple(one for one in found.in_use if one.passed),
    )


@pytest.fixture
def kept_on(tmp_path):
    path = tmp_path / "proof.md"
    path.write_text(f"# Before\n\n{page.BEGIN}\nFORMER BLOCK\n{page.END}\n\nAfter.\n")
    return path


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(argv)


def test_status_is_0_if_all_is_as_it_must_be(unbroken):
    assert unbroken.broken == ()
    assert command.status(unbroken) == 0
    assert "findings that are wrong: 0" in page.markdown(unbroken)


def test_status_is_1_if_a_negative_control_keeps_its_promise(unbroken):
    control = next(one for one in unbroken.in_the_pool if one.expected == "breaks")
    tamed = replace(control, violations=0, exact=None)
    found = replace(unbroken, in_the_pool=(*unbroken.in_the_pool, tamed))
    assert command.status(found) == 1
    assert "a negative control must exceed" in found.broken[0]


def test_status_is_1_if_a_promise_is_broken(unbroken):
    kept = next(one for one in unbroken.in_the_pool if one.what == "certificate")
    found = replace(unbroken, in_the_pool=(replace(kept, violations=DRAWS // 2, exact=None),))
    assert command.status(found) == 1
    assert "BROKEN: certificate, 59 positives" in page.markdown(found)


def test_status_is_1_if_simulation_and_exact_law_disagree(unbroken):
    kept = next(one for one in unbroken.in_the_pool if one.what == "certificate")
    found = replace(unbroken, in_the_pool=(replace(kept, violations=0, exact=0.5),))
    assert "the exact law says 0.5000" in found.broken[0]


def test_page_figures_and_numbers_are_kept(found, kept_on, tmp_path):
    results = command.keep(found, tmp_path, kept_on)
    text = kept_on.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\n\nAfter.\n")
    assert "FORMER" not in text
    assert "| certificate " in text
    assert "MAPIE was left out or is not installed: nothing was compared" in text
    for name in ("violations.png", "splits.png"):
        assert (tmp_path / "proof" / name).read_bytes().startswith(b"\x89PNG")
    document = json.loads(results.read_text())
    assert (document["draws"], document["seed"], document["peer"]) == (DRAWS, 2, None)
    assert document["scores_sha256"] == found.scores_sha256


def test_refreshing_a_page_twice_changes_nothing(found, kept_on):
    page.refresh(kept_on, page.markdown(found))
    once = kept_on.read_bytes()
    page.refresh(kept_on, page.markdown(found))
    assert kept_on.read_bytes() == once


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        f"{page.END} {page.BEGIN}",
        page.BEGIN,
        f"{page.BEGIN} {page.END} {page.BEGIN} {page.END}",
    ],
)
def test_a_page_without_its_markers_is_refused_and_left_alone(kept_on, text):
    kept_on.write_text(text)
    with pytest.raises(RunError, match="once each"):
        page.refresh(kept_on, "block")
    assert kept_on.read_text() == text


def test_a_missing_page_is_refused(tmp_path):
    with pytest.raises(RunError, match="expected the page"):
        page.refresh(tmp_path / "none.md", "block")


def test_a_page_that_is_not_text_is_refused(kept_on):
    kept_on.write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="in UTF-8"):
        page.refresh(kept_on, "block")


def test_the_verb_writes_everything_and_says_by_its_status_that_few_draws_show_little(
    recorded, found, kept_on, tmp_path, capsys
):
    (tmp_path / "scores.csv").write_bytes(recorded.read_bytes())
    argv = ("--experiment", str(tmp_path), "--page", str(kept_on), "--draws", str(DRAWS), "--seed", "2")
    assert command.main(parsed(*argv, "--no-mapie", "--no-tracking")) == 1
    assert "BROKEN" in capsys.readouterr().out
    same_seed = (tmp_path / "results.json").read_text()
    assert same_seed == canonical_json(found.document()), "the same seed gives the same numbers"


def test_a_page_that_cannot_keep_the_findings_is_refused_before_any_draw(recorded, tmp_path, capsys):
    """It was found missing after minutes, and the numbers were gone with it."""
    (tmp_path / "scores.csv").write_bytes(recorded.read_bytes())
    argv = ("--experiment", str(tmp_path), "--page", str(tmp_path / "none.md"), "--no-tracking")
    with pytest.raises(RunError, match="expected the page"):
        command.main(parsed(*argv))
    assert "calibration sets" not in capsys.readouterr().out


def test_a_page_whose_figures_would_need_its_own_name_is_refused_before_the_draws(
    capsys, kept_on, tmp_path, recorded
):
    (tmp_path / "scores.csv").write_bytes(recorded.read_bytes())
    bare = kept_on.rename(tmp_path / "page")
    with pytest.raises(RunError, match="expected a page with a suffix"):
        command.main(parsed("--experiment", str(tmp_path), "--page", str(bare), "--no-tracking"))
    assert "calibration sets" not in capsys.readouterr().out


@pytest.mark.parametrize(("option", "minimum"), [("--draws", command._FEWEST_DRAWS), ("--seed", 0)])
@pytest.mark.parametrize("said", ["-1", "abc", "1.5", ""])
def test_a_number_that_cannot_be_used_is_refused_in_one_sentence(capsys, option, minimum, said):
    with pytest.raises(SystemExit):
        parsed(option, said)
    assert f"expected a whole number from {minimum} up, found '{said}'" in capsys.readouterr().err


def test_too_few_draws_are_refused(capsys):
    with pytest.raises(SystemExit):
        parsed("--draws", "99")
    assert "expected a whole number from 100 up, found '99'" in capsys.readouterr().err


def test_numbers_reach_the_tracker(unbroken, kept_on, tmp_path):
    runs, results = tmp_path / "experiments" / "runs", tmp_path / "results.json"
    results.write_text("{}")
    kept_on.with_suffix("").mkdir()
    command.track(unbroken, results, kept_on, command.tracker(runs))
    with closing(sqlite3.connect(runs.parent / "mlflow.db")) as database:
        metrics = dict(database.execute("select key, value from metrics"))
        (status,) = database.execute("select status from runs").fetchone()
    assert metrics == pytest.approx(dict(unbroken.numbers()))
    assert status == "FINISHED"
