from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

import made_runs
import tiny_bundle
from lesion_triage import cli
from lesion_triage.bundle.certificate import GroupRow
from lesion_triage.cards.change import Level, compare
from lesion_triage.cards.change_page import page
from lesion_triage.cards.checklist import BLANK
from lesion_triage.cards.evidence import open_evidence
from lesion_triage.errors import BundleError, ReportError, RunError


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    return made_runs.make(tmp_path_factory.mktemp("runs") / "old")


def lines(change, level: Level) -> set[str]:
    return {line.code for line in change.lines if line.level is level}


def group(name: str, status: str) -> dict:
    certified = status == "certified"
    return GroupRow(
        by="sex",
        group=name,
        members=(name,),
        status=status,
        positives=60 if certified else 20,
        positives_abstained=0,
        misses_seen=0,
        misses_allowed=0 if certified else None,
        threshold=0.5 if certified else None,
        sensitivity_lower_bound=0.95 if certified else None,
        confidence=0.95,
        minimum_positives=59,
    ).model_dump(mode="json")


def everyone() -> dict:
    return tiny_bundle.certificate_for(tiny_bundle.policy()).groups[0].model_dump(mode="json")


def test_the_same_bundle_differs_in_nothing_and_is_no_regression(old):
    change = compare(open_evidence(old), open_evidence(old / "bundle"))
    assert not any(change.differences.values())
    assert change.regressions == ()
    assert "The two are the same bundle." in page(change)


def test_a_bundle_that_was_measured_in_no_slice_cannot_be_called_no_worse_than(tmp_path):
    few = {"name": "all", "title": "All cases", "cases": 4, "positives": 2, "metrics": {}, "note": "too few"}
    old, new = (
        made_runs.make(tmp_path / name, slices=[few], certificate={"purpose": name})
        for name in ("old", "new")
    )
    change = compare(open_evidence(old), open_evidence(new))
    assert lines(change, Level.UNKNOWN) == {"results"}
    assert "measured in no slice" in page(change)


def test_what_changed_is_named_with_both_values_and_nothing_else_is(old, tmp_path):
    new = made_runs.make(
        tmp_path / "new",
        config={"train": {"epochs": 3}},
        certificate={"purpose": "more epochs"},
        threshold=0.4,
    )
    change = compare(open_evidence(old), open_evidence(new), "Ada", "trained shorter")
    assert [(one.what, one.old, one.new) for one in change.differences["configuration"]] == [
        ("train.epochs", 15, 3)
    ]
    assert {one.what: (one.old, one.new) for one in change.differences["policy"]}["threshold"] == (0.5, 0.4)
    assert {one.what for one in change.differences["certificate"]} == {"purpose", "threshold"}
    assert change.differences["input"] == change.differences["intended use"] == ()
    text = page(change)
    assert "Ada" in text
    assert "trained shorter" in text


def test_two_slices_of_one_name_are_refused(old, tmp_path):
    twice = [
        made_runs.slice_("all", 95, 100, 120, 200),
        *(made_runs.slice_("source_a", 40, 40, 60, 100),) * 2,
    ]
    new = made_runs.make(tmp_path / "new", slices=twice)
    with pytest.raises(ReportError, match="two slices named 'source_a'"):
        compare(open_evidence(old), open_evidence(new))


# Clopper-Pearson: 95 of 100 is 0.887 to 0.984, 120 of 200 is 0.529 to 0.668; referral is 0.533 to 0.633.
@pytest.mark.parametrize(
    ("slices", "worse"),
    [
        ([made_runs.slice_("all", 90, 100, 120, 200)], set()),
        ([made_runs.slice_("all", 88, 100, 120, 200)], {"sensitivity: all"}),
        ([made_runs.slice_("all", 95, 100, 104, 200)], {"specificity: all", "referral_rate: all"}),
        (
            [made_runs.slice_("all", 95, 100, 120, 200, auroc={"value": 0.84, "low": 0.8, "high": 0.9})],
            {"auroc: all"},
        ),
    ],
)
def test_a_measure_is_worse_beyond_the_end_of_the_old_interval(old, tmp_path, slices, worse):
    change = compare(open_evidence(old), open_evidence(made_runs.make(tmp_path / "new", slices=slices)))
    assert lines(change, Level.WORSE) == worse
    assert lines(change, Level.UNKNOWN) == set()


def test_a_measure_that_is_no_number_is_not_called_no_worse(old, tmp_path):
    new = made_runs.make(tmp_path / "new")
    results = new / "report" / "results.json"
    (part,) = json.loads(results.read_text())["slices"]
    for measure in ("sensitivity_exact", "specificity_exact"):
        part[measure]["value"] = math.nan
    part["metrics"] = {name: {**found, "value": math.nan} for name, found in part["metrics"].items()}
    made_runs.rewrite(results, slices=[part])
    worse = lines(compare(open_evidence(old), open_evidence(new)), Level.WORSE)
    assert worse == {f"{name}: all" for name in ("auroc", "sensitivity", "specificity", "referral_rate")}


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("report/results.json", {"slices": 3}, r"results\.json: damaged \(slices: "),
        ("report/results.json", {"slices": [{"name": "all"}]}, r"damaged \(slices\.0\.title: Field required"),
        (
            "report/results.json",
            {"slices": [{"name": "a", "title": "A", "metrics": {"auroc": {"value": 1, "low": "x"}}}]},
            r"damaged \(slices\.0\.metrics\.auroc\.low: ",
        ),
        ("report/results.json", {"parity": {"images": 3}}, r"damaged \(parity\.largest_score_difference: "),
        ("audit_with_model/audit.json", {"verdict": "good"}, r"audit\.json: damaged \(verdict: "),
        ("audit_with_model/audit.json", {"facts": []}, r"audit\.json: damaged \(facts: "),
    ],
)
def test_a_record_that_was_damaged_by_hand_is_one_sentence(old, tmp_path, capsys, file, changes, said):
    new = made_runs.make(tmp_path / "new")
    made_runs.rewrite(new / file, **changes)
    assert cli.main(["change-record", str(new), "--against", str(old)]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert error.count("\n") == 1


def test_results_that_are_no_document_are_damaged_and_not_missing(old, tmp_path):
    new = made_runs.make(tmp_path / "new")
    (new / "report" / "results.json").write_text("[]")
    with pytest.raises(RunError, match=r"results\.json: damaged"):
        compare(open_evidence(old), open_evidence(new))


def test_a_slice_that_got_worse_is_seen_though_all_cases_together_did_not(tmp_path):
    both = [made_runs.slice_("all", 95, 100, 120, 200), made_runs.slice_("source_a", 40, 40, 60, 100)]
    old = made_runs.make(tmp_path / "old", slices=both)
    worse = [both[0], made_runs.slice_("source_a", 33, 40, 60, 100)]
    change = compare(open_evidence(old), open_evidence(made_runs.make(tmp_path / "new", slices=worse)))
    assert lines(change, Level.WORSE) == {"sensitivity: source_a"}


def test_a_slice_that_is_not_measured_any_more_cannot_be_compared(tmp_path):
    both = [made_runs.slice_("all", 95, 100, 120, 200), made_runs.slice_("source_a", 40, 40, 60, 100)]
    old = made_runs.make(tmp_path / "old", slices=both)
    change = compare(open_evidence(old), open_evidence(made_runs.make(tmp_path / "new", slices=both[:1])))
    assert {"sensitivity: source_a", "auroc: source_a"} <= lines(change, Level.UNKNOWN)


def test_other_test_cases_are_not_compared(old, tmp_path):
    new = made_runs.make(tmp_path / "new", results={"splits_sha256": "0" * 64})
    change = compare(open_evidence(old), open_evidence(new))
    assert lines(change, Level.UNKNOWN) == {"results"}
    assert "not tested on the same cases" in page(change)


def test_results_of_another_bundle_are_not_taken_for_its_own(old, tmp_path):
    new = made_runs.make(tmp_path / "new", results={"bundle_sha256": "0" * 64})
    change = compare(open_evidence(old), open_evidence(new))
    assert lines(change, Level.UNKNOWN) == {"results", "parity"}


def test_a_promise_that_is_lower_and_a_group_that_is_lost_are_regressions(tmp_path):
    groups = [everyone(), group("female", "certified")]
    old = made_runs.make(tmp_path / "old", certificate={"groups": groups})
    less = {"target_sensitivity": 0.9, "groups": [everyone(), group("female", "not_certifiable")]}
    change = compare(open_evidence(old), open_evidence(made_runs.make(tmp_path / "new", certificate=less)))
    assert lines(change, Level.WORSE) == {"certificate", "groups"}
    assert change.lost == ("sex female",)
    assert compare(open_evidence(tmp_path / "new"), open_evidence(old)).gained == ("sex female",)


def test_a_merged_group_that_keeps_its_name_and_loses_a_member_is_lost(tmp_path):
    whole = {**group("other", "certified"), "members": ["a", "b"]}
    part = {**whole, "members": ["a"]}
    old, new = (
        made_runs.make(tmp_path / name, certificate={"groups": [everyone(), row]})
        for name, row in (("old", whole), ("new", part))
    )
    change = compare(open_evidence(old), open_evidence(new))
    assert (change.lost, change.gained) == (("sex other",), ())
    back = compare(open_evidence(new), open_evidence(old))
    assert (back.lost, back.gained) == ((), ("sex other",))


def test_a_promise_that_begins_to_count_red_flags_is_a_regression(old, tmp_path):
    """It holds only where the same questions are asked; the one before held wherever they were or not."""
    new = made_runs.make(tmp_path / "new", certificate={"red_flags_counted": True})
    change = compare(open_evidence(old), open_evidence(new))
    assert lines(change, Level.WORSE) == {"certificate"}
    assert "Red flags count now" in page(change)
    assert compare(open_evidence(new), open_evidence(old)).regressions == ()


def test_flips_a_worse_audit_and_an_audit_of_other_data_are_seen(old, tmp_path):
    worse = made_runs.make(
        tmp_path / "worse",
        results={"parity": {"images": 300, "largest_score_difference": 0.1, "decision_flips": 2}},
        audit={"verdict": "warn"},
    )
    assert lines(compare(open_evidence(old), open_evidence(worse)), Level.WORSE) == {"parity", "audit"}
    other = made_runs.make(
        tmp_path / "other", audit={"facts": {"with_model": True, "manifest_sha256": "0" * 64}}
    )
    assert "audit" in lines(compare(open_evidence(old), open_evidence(other)), Level.UNKNOWN)


def test_an_audit_of_the_data_alone_is_not_compared_with_one_of_data_and_model(old, tmp_path):
    facts = {"with_model": False, "manifest_sha256": open_evidence(old).bundle.certificate.manifest_sha256}
    new = made_runs.make(tmp_path / "new", audit={"facts": facts})
    (new / "audit_with_model").rename(new / "audit")
    change = compare(open_evidence(old), open_evidence(new))
    assert lines(change, Level.UNKNOWN) == {"audit"}
    assert "The new bundle's audit is of its data alone" in page(change)
    assert compare(open_evidence(new), open_evidence(old)).regressions == ()


def test_parity_without_a_count_of_decisions_cannot_be_compared(old, tmp_path):
    parity = {"images": 300, "largest_score_difference": 0.0, "decision_flips": None}
    new = made_runs.make(tmp_path / "new", results={"parity": parity})
    change = compare(open_evidence(old), open_evidence(new))
    assert lines(change, Level.UNKNOWN) == {"parity"}
    assert "None decisions" not in page(change)


def test_a_bundle_that_is_compared_with_itself_says_why_it_ends_with_1(tmp_path, capsys):
    alone = str(tiny_bundle.make(tmp_path / "alone").folder)
    assert cli.main(["change-record", alone, "--against", alone]) == 1
    text = capsys.readouterr().out
    assert "The two are the same bundle." in text
    assert "- cannot be compared: One of the two has no results on a test split." in text


def test_a_changed_intended_use_stands_out(tmp_path):
    cards = [
        f"# tiny\n\n## What it is for\n\n{text}\n\n## How it was made\n\nSo.\n"
        for text in ("To order.", "More.")
    ]
    old = made_runs.make(tmp_path / "old", model_card=cards[0])
    change = compare(open_evidence(old), open_evidence(made_runs.make(tmp_path / "new", model_card=cards[1])))
    assert any("INTENDED USE" in kind for kind in change.kinds)


def test_a_bundle_by_itself_is_compared_as_far_as_it_goes(old, tmp_path):
    alone = tiny_bundle.make(tmp_path / "alone").folder
    change = compare(open_evidence(old), open_evidence(alone))
    assert lines(change, Level.UNKNOWN) == {"results", "parity", "audit"}
    assert [one.what for one in change.differences["configuration"]] == ["all"]


def test_who_why_and_approval_are_blank_until_somebody_says(old):
    text = page(compare(open_evidence(old), open_evidence(old)))
    assert text.count(f"| {BLANK} |") >= 3
    for part in ("1. Description of modifications", "2. Modification protocol", "3. Impact assessment"):
        assert f"## {part}" in text


def test_the_command_prints_the_record_and_ends_with_1_on_a_regression(old, tmp_path, capsys):
    worse = made_runs.make(tmp_path / "worse", slices=[made_runs.slice_("all", 50, 100, 120, 200)])
    out = tmp_path / "out"
    assert cli.main(["change-record", str(worse), "--against", str(old), "--out", str(out)]) == 1
    assert capsys.readouterr().out == (out / "change-record.md").read_text()
    tree = json.loads((out / "change-record.json").read_text())
    assert tree["regression"] is True
    assert {line["code"] for line in tree["lines"] if line["level"] == "worse"} == {"sensitivity: all"}
    assert cli.main(["change-record", str(old), "--against", str(old)]) == 0


def test_where_the_data_lie_is_in_no_record(old, tmp_path):
    new = made_runs.make(tmp_path / "new", config={"data": {"source": "folder", "root": "/srv/John-Roe"}})
    change = compare(open_evidence(old), open_evidence(new))
    assert "Jane-Doe" not in page(change) + change.to_json()
    assert "John-Roe" not in page(change) + change.to_json()


def test_what_is_no_run_and_no_bundle_is_refused(old, tmp_path):
    with pytest.raises(RunError, match=r"no such folder, expected that of a run or of a bundle"):
        open_evidence(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        open_evidence(tmp_path / "empty")
    with pytest.raises(RunError, match=r"no config\.yaml, expected the folder of a run"):
        open_evidence(old / "bundle", tmp_path)


@pytest.mark.parametrize("content", ["", "- a list", "name: old\nmodle: {}\n"])
def test_a_configuration_of_another_version_is_refused_in_one_sentence(old, tmp_path, capsys, content):
    run = made_runs.make(tmp_path / "new")
    (run / "config.yaml").write_text(content)
    assert cli.main(["change-record", str(run), "--against", str(old)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ConfigError: {run / 'config.yaml'}: ")
    assert error.count("\n") == 1
