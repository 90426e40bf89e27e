"""Cells and their comparison: what agrees, what differs, what cannot be compared and why."""

from __future__ import annotations

import pytest
from small_experiment import VERSION

from lesion_triage.reproduce.cells import cells_of, flatten
from lesion_triage.reproduce.comparison import Verdict, compare, exit_status
from lesion_triage.reproduce.definition import Version
from lesion_triage.reproduce.machine import describe_differences, machine_facts

TABLE = [
    {"cells": "a.exact", "within": 0, "because": "counted, and not estimated"},
    {"cells": "*.auroc", "within": 0.01, "on_same_machine": 0, "because": "rounding elsewhere"},
    {"cells": "*.sha256", "on_same_machine": 0, "because": "deterministic on one machine"},
]
RECORDED = {"a.exact": 9, "a.auroc": 0.9, "a.sha256": "f00", "a.unlisted": 1.0, "b.auroc": None}


def rows(found: dict, **how) -> dict[str, tuple[Verdict, str]]:
    version = Version.model_validate({**VERSION, "table": TABLE})
    compared = compare(version, RECORDED, {**RECORDED, **found}, **{"obstacles": {}, **how})
    return {row.cell: (row.verdict, row.why) for row in compared}


def test_cells_outside_the_table_are_not_compared_and_every_other_one_is():
    assert list(rows({"a.unlisted": 2.0})) == ["a.exact", "a.auroc", "b.auroc", "a.sha256"]


@pytest.mark.parametrize(
    ("other_machine", "found", "verdict"),
    [
        ("", 0.9, Verdict.agrees),
        ("", 0.905, Verdict.differs),
        ("an abacus", 0.905, Verdict.agrees),
        ("an abacus", 0.91, Verdict.agrees),
        ("an abacus", 0.9101, Verdict.differs),
    ],
)
def test_the_narrow_tolerance_holds_on_the_same_machine_and_the_wide_one_elsewhere(
    other_machine, found, verdict
):
    assert rows({"a.auroc": found}, other_machine=other_machine)["a.auroc"][0] is verdict


def test_what_is_deterministic_on_one_machine_only_is_not_compared_on_another():
    assert rows({"a.sha256": "bad"})["a.sha256"][0] is Verdict.differs
    verdict, why = rows({"a.sha256": "bad"}, other_machine="an abacus")["a.sha256"]
    assert (verdict, why) == (Verdict.not_compared, "another machine: an abacus")


def test_not_estimable_agrees_with_not_estimable_alone():
    assert rows({})["b.auroc"][0] is Verdict.agrees
    assert rows({"b.auroc": 0.5})["b.auroc"][0] is Verdict.differs


def test_an_obstacle_keeps_its_document_or_part_from_being_compared_and_no_other():
    found = rows({"a.exact": 1}, obstacles={"a": "other pictures"})
    assert found["a.exact"] == (Verdict.not_compared, "other pictures")
    assert found["b.auroc"][0] is Verdict.agrees
    assert (
        rows({"a.exact": 1}, obstacles={"a.exac": "a part of another name"})["a.exact"][0] is Verdict.differs
    )


def test_a_cell_that_did_not_come_out_differs():
    version = Version.model_validate({**VERSION, "table": TABLE})
    (first, *_) = compare(version, {"a.exact": 9}, {}, obstacles={})
    assert first.verdict is Verdict.differs


def test_status_tells_agreement_difference_and_no_comparison_apart():
    version = Version.model_validate({**VERSION, "table": TABLE})

    def code(found: dict, **how) -> int:
        return exit_status(compare(version, RECORDED, {**RECORDED, **found}, **{"obstacles": {}, **how}))

    assert code({}) == 0
    assert code({"a.exact": 8}) == 1
    assert code({"a.exact": 8}, obstacles={"b": "other pictures"}) == 1
    assert code({}, other_machine="an abacus") == 3
    assert exit_status([]) == 3


def test_means_are_over_seeds_and_only_of_what_each_has():
    seeds = {"seed-0": {"x": 1.0, "y": None}, "seed-1": {"x": 4.0, "y": 2.0}}
    cells = cells_of(seeds, ("seed-0", "seed-1"))
    assert (cells["mean.x"], cells["lowest.x"], cells["highest.x"]) == (2.5, 1.0, 4.0)
    assert "mean.y" not in cells
    assert "mean.x" not in cells_of(seeds)


def test_items_of_a_list_are_called_by_name_or_seed_else_by_place():
    tree = {"runs": [{"seed": 3, "v": 1}, {"v": 2}], "parts": [{"name": "all", "v": 3}]}
    assert {"runs.3.v": 1, "runs.1.v": 2, "parts.all.v": 3}.items() <= dict(flatten(tree)).items()


def test_machines_differ_by_what_they_are_and_an_unknown_one_differs():
    here = machine_facts()
    assert describe_differences(here, here) == ""
    assert "processor" in describe_differences({**here, "processor": "an abacus"}, here)
    assert describe_differences({}, here) == "the machine of the record is not known"
