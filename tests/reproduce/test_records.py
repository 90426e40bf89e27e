"""What was recorded, and what of a record that was edited by hand cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_experiment import EXPERIMENT

import made_runs
from lesion_triage.bundle.document import sha256_of
from lesion_triage.errors import DataError
from lesion_triage.reproduce import records
from lesion_triage.reproduce.cells import cells_of
from lesion_triage.reproduce.definition import Experiment
from lesion_triage.reproduce.records import Record, StepResult

SMALL = Experiment.model_validate(EXPERIMENT)
WAITS = json.dumps({"kept": 1}).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = {"waits": StepResult({"kept": 1}, WAITS, {"manifest_sha256": "a"}, {"content": "b"})}
    records.write(tmp_path, "full", found, {"processor": "an abacus"}, "2026-01-01", ("train.epochs=1",))
    return tmp_path


def read(folder: Path) -> Record:
    return records.read(folder, SMALL, "full")


def test_what_was_written_is_read(folder):
    record = read(folder)
    assert (record.machine, record.recorded_on) == ({"processor": "an abacus"}, "2026-01-01")
    assert (record.settings, record.made_from["waits"]) == (("train.epochs=1",), {"manifest_sha256": "a"})
    assert record.cells(SMALL.full) == {"waits.kept": 1, "waits.content": "b"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"documents": {"waits": {"made_from": {}, "facts": {}}}}, "documents.waits.sha256: Field required"),
        (
            {"documents": {"waits": {"sha256": sha256_of(WAITS), "made_from": {}}}},
            "documents.waits.facts: Field required",
        ),
        ({"documents": {"waits": "lost"}}, "documents.waits: Input should be a valid dictionary"),
        ({"documents": None}, "documents: Input should be a valid dictionary"),
        ({"settings": "train.epochs=1"}, "settings: Input should be a valid tuple"),
        ({"machine": 7}, "machine: Input should be a valid"),
        ({"format": 2}, "format: Input should be 1"),
    ],
)
def test_a_description_edited_by_hand_is_refused_in_one_sentence(folder, change, sentence):
    path = folder / "recorded.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=rf"recorded\.json: {sentence}.*; record it again\.$"):
        read(folder)


def test_a_document_that_lacks_what_its_kind_has_is_named(folder):
    (folder / "waits.json").write_text(json.dumps({"slices": [], "cases": 3}))
    with pytest.raises(DataError, match=r"^document 'waits' lacks 'positives'"):
        read(folder).cells(SMALL.full)


def results(**metrics: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("cases", "positives", "missed", "abstained", "positives_abstained"), 1)
    slices = [made_runs.slice_("all", 111, 112, 368, 605, **metrics)]
    return {**counts, "photographs": 1, "threshold": 0.1, "parity": {}, "slices": slices}


def test_a_share_has_its_exact_interval_in_prose_as_it_has_in_tables():
    drawn = {"value": 111 / 112, "low": 0.971, "high": 1.0, "draws": 2000}
    document = results(sensitivity=drawn, specificity=None, ppv=None)
    cells, exact = cells_of({"it": document}), document["slices"][0]["sensitivity_exact"]
    assert exact["low"] == pytest.approx(0.951, abs=5e-4)
    assert (cells["it.all.sensitivity.low"], cells["it.all.sensitivity.high"]) == (
        exact["low"],
        exact["high"],
    )
    assert cells["it.all.sensitivity"] == 111 / 112
    assert cells["it.all.specificity"] == 368 / 605, "few patients: draws lack the class, and a share is left"
    assert cells["it.all.ppv"] is None
    assert cells["it.all.auroc.low"] == made_runs.AUROC["low"]
