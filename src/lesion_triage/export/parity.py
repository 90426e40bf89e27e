"""The gate between torch and onnxruntime: the same pictures in both, and the resulting decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lesion_triage.bundle import pixels
from lesion_triage.bundle.calibration import calibrated_score
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import PixelSpec, Policy
from lesion_triage.calibrate.cases import gather_cases
from lesion_triage.config import Roots
from lesion_triage.data.manifest import read_picture
from lesion_triage.data.records import Record
from lesion_triage.errors import ParityError
from lesion_triage.export.onnx_graph import Views
from lesion_triage.predictions import Predictions
from lesion_triage.train.ensemble import Ensemble
from lesion_triage.train.network import TriageNetwork

_BATCH_SIZE = 32
"""Pictures per batch, counting all views."""


@dataclass(frozen=True)
class Parity:
    """How far the two runtimes differ on one split."""

    split: str
    images: int
    """Gradable photographs compared."""
    largest_logit_difference: float
    largest_score_difference: float
    decision_flips: int
    """Cases whose disposition differs."""


def compare(
    network: TriageNetwork | Ensemble,
    views: int,
    spec: PixelSpec,
    policy: Policy,
    predictions: Predictions,
    records: Sequence[Record],
    root: Roots,
) -> Parity:
    """Score the pictures of ``predictions`` again in torch and compare photograph by photograph."""
    module = Views(network, views).eval()
    predictions = predictions.behind_gate(policy.novelty_limit)
    by_id = {record.image_id: record for record in records}
    gradable = [row for row in predictions.rows if row.logit is not None]
    torch_logits: dict[str, float] = {}
    batch = max(1, _BATCH_SIZE // views)
    for start in range(0, len(gradable), batch):
        rows = gradable[start : start + batch]
        pictures = [
            torch.from_numpy(pixels.decode(read_picture(root, by_id[row.image_id]), spec).pixels)
            for row in rows
        ]
        with torch.inference_mode():
            logits = module(torch.stack(pictures))[0].tolist()
        torch_logits.update(zip((row.image_id for row in rows), logits, strict=True))
    logit_difference = score_difference = 0.0
    for row in gradable:
        assert row.logit is not None
        other = torch_logits[row.image_id]
        logit_difference = max(logit_difference, abs(row.logit - other))
        ours, theirs = (calibrated_score(policy.calibrator, value) for value in (row.logit, other))
        score_difference = max(score_difference, abs(ours - theirs))
    flips = 0
    for case in gather_cases(predictions):
        # With the history: a case of an unknown group may go up whatever its score and hide a difference.
        ours_ = decide(policy, case.logits, case.history).disposition
        in_torch = [torch_logits.get(row.image_id) for row in case.rows]
        flips += ours_ is not decide(policy, in_torch, case.history).disposition
    return Parity(predictions.split, len(gradable), logit_difference, score_difference, flips)


def require(parity: Parity, tolerance: float) -> None:
    """Accept the graph, or stop the export.

    Raises:
        ParityError: a score differs by more than ``tolerance``, or a decision flips.
    """
    if parity.largest_score_difference > tolerance or parity.decision_flips:
        raise ParityError(
            f"the exported graph disagrees with the network on split '{parity.split}': largest score "
            f"difference {parity.largest_score_difference:.2e} (at most {tolerance:.0e} is allowed), "
            f"{parity.decision_flips} decisions flipped among {parity.images} photographs; "
            "no bundle was made. Try another export.opset or backbone."
        )
