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
    module: Views,
    spec: PixelSpec,
    policy: Policy,
    predictions: Predictions,
    records: Sequence[Record],
    root: Roots,
) -> Parity:
    """Score the pictures of ``predictions`` again in torch and compare photograph by photograph.

    Args:
        module: from which the graph was written.
        spec: how a file becomes pixels.
        policy: its novelty gate decides which photographs are compared, the whole of it which cases flip.
        predictions: from the graph, before the novelty gate.
        records: of the photographs in ``predictions``, which may be among others.
        root: folder of the dataset.

    Raises:
        ScoringError: a logit of the module is not finite.
    """
    predictions = predictions.behind_gate(policy.novelty_limit)
    gradable = {row.image_id: row.logit for row in predictions.rows if row.logit is not None}
    wanted = [record for record in records if record.image_id in gradable]
    in_torch = _torch_logits(module.eval(), spec, wanted, root)
    pairs = [(logit, in_torch[image_id]) for image_id, logit in gradable.items()]
    scores = [tuple(calibrated_score(policy.calibrator, logit) for logit in pair) for pair in pairs]
    flips = 0
    for case in gather_cases(predictions):
        # With the history: a case of an unknown group may go up whatever its score and hide a difference.
        served = decide(policy, case.logits, case.history)
        trained = decide(policy, [in_torch.get(row.image_id) for row in case.rows], case.history)
        flips += served.disposition is not trained.disposition
    return Parity(
        split=predictions.split,
        images=len(gradable),
        largest_logit_difference=max((abs(ours - theirs) for ours, theirs in pairs), default=0.0),
        largest_score_difference=max((abs(ours - theirs) for ours, theirs in scores), default=0.0),
        decision_flips=flips,
    )


def _torch_logits(module: Views, spec: PixelSpec, records: Sequence[Record], root: Roots) -> dict[str, float]:
    """Image -> logit."""
    logits: list[float] = []
    batch_size = max(1, _BATCH_SIZE // module.views)
    for start in range(0, len(records), batch_size):
        files = (read_picture(root, record) for record in records[start : start + batch_size])
        pictures = torch.stack([torch.from_numpy(pixels.decode(data, spec).pixels) for data in files])
        with torch.inference_mode():
            logits += module(pictures)[0].tolist()
    return {record.image_id: logit for record, logit in zip(records, logits, strict=True)}


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
