"""One point of the learning curve: case-level AUROC on the validation split. Imports torch and Fabric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from lesion_triage.bundle.policy import aggregate_logits
from lesion_triage.calibrate.metrics import auroc_from_scores
from lesion_triage.data.records import Record
from lesion_triage.errors import DivergedError
from lesion_triage.train.data_loading import SCORING_BATCH_SIZE
from lesion_triage.train.distributed import all_reduce_sum, raise_on_rank_zero


@torch.no_grad()
def logits(fabric: Fabric, count: int, logits_of: Callable[[int, int], Tensor]) -> list[float]:
    """Logits of all pictures, in order; each process scores every n-th block.

    Args:
        fabric: the processes.
        count: pictures.
        logits_of: called with the first picture of a block and the one after its last.
    """
    found = torch.zeros(count, dtype=torch.float32, device=fabric.device)
    starts = range(0, count, SCORING_BATCH_SIZE)
    for turn in range(0, len(starts), fabric.world_size):
        mine = turn + fabric.global_rank
        start = starts[min(mine, len(starts) - 1)]  # a sharded network needs all processes every time
        scored = logits_of(start, min(start + SCORING_BATCH_SIZE, count)).float()
        if mine < len(starts):
            found[start : start + len(scored)] = scored
    values: list[float] = all_reduce_sum(fabric, found).tolist()  # each value is from exactly one process
    return values


def require_finite(fabric: Fabric, values: Sequence[float], epoch: int) -> None:
    """Check that the network's validation logits are finite after an epoch; to be called in all processes.

    Nothing is written before this check, so the last state stays good.

    Raises:
        DivergedError: a logit is not finite.
    """
    if broken := sum(not math.isfinite(value) for value in values):
        raise_on_rank_zero(
            fabric,
            DivergedError(
                f"after epoch {epoch + 1} the logit of {broken} of {len(values)} validation photographs is "
                "no finite number: the training diverged in its last steps; lower train.learning_rate or "
                "use train.precision 32-true. The last good state is kept."
            ),
        )


def case_auroc(
    records: Sequence[Record], values: Sequence[float], aggregation: Literal["max", "mean"]
) -> float:
    """AUROC over cases, in [0, 1]; NaN without both classes. A case is positive if a photograph of it is."""
    cases: dict[str, list[float]] = {}
    positive: dict[str, bool] = {}
    for record, logit in zip(records, values, strict=True):
        cases.setdefault(record.case_id, []).append(logit)
        positive[record.case_id] = positive.get(record.case_id, False) or bool(record.needs_in_person)
    scores = [aggregate_logits(logits, aggregation) for logits in cases.values()]
    return auroc_from_scores(np.array(scores), np.array(list(positive.values())))
