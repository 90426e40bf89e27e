"""A decision that differs between torch and the exported graph is counted, whoever the case is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import tiny_bundle as tiny
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.schema import Grouping
from lesion_triage.data.records import Record
from lesion_triage.errors import ParityError
from lesion_triage.export.onnx_graph import Views
from lesion_triage.export.parity import Parity, compare, require
from lesion_triage.predictions import Predictions
from made_predictions import row

TORCH_LOGIT = 1.0


class Constant(nn.Module):
    """The contract of a network, with one logit for all."""

    def forward(self, pixels):
        size = pixels.shape[0]
        return torch.full((size,), TORCH_LOGIT), torch.zeros(size, 1), torch.zeros(size, 1)


def test_a_flip_in_a_certified_group_is_counted_though_a_case_of_no_known_group_would_go_up(tmp_path):
    picture = tiny.picture_bytes("below")
    (tmp_path / "spot.png").write_bytes(picture)
    rows = (
        row("flipped", "a", -1.0, False, sex="female"),
        row("same", "b", 2.0, True, sex="female"),
        row("unknown", "c", -1.0, False),
    )
    known = [
        Record(
            image_id=each.image_id,
            path="spot.png",
            lesion_id=each.case_id,
            needs_in_person=each.needs_in_person,
            source="drawn",
            sha256=sha256_of(picture),
            width_px=160,
            height_px=120,
        )
        for each in rows
    ]
    policy = tiny.policy(groupings=(Grouping(by="sex", thresholds={"female": 0.5}),))
    table = Predictions("validation", "a" * 64, "b" * 64, "c" * 64, rows)
    found = compare(Views(Constant(), 1), tiny.PIXEL_SPEC, policy, table, known, tmp_path)
    assert found.images == 3
    assert found.largest_logit_difference == 2.0
    assert found.decision_flips == 1


ALIKE = Parity("validation", 3, 0.1, 1e-4, 0)


@pytest.mark.parametrize(
    "found",
    [
        replace(ALIKE, largest_score_difference=math.nextafter(1e-4, 1)),
        replace(ALIKE, largest_score_difference=0.0, decision_flips=1),
    ],
    ids=["score", "decision"],
)
def test_graph_that_scores_or_decides_otherwise_stops_the_export(found):
    with pytest.raises(ParityError, match="no bundle was made"):
        require(found, 1e-4)


def test_graph_within_the_tolerance_is_accepted():
    require(ALIKE, 1e-4)
