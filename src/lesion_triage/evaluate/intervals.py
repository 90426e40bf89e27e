"""Which interval of a metric every reader of results shows. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def interval_of(part: Mapping[str, Any], metric: str) -> Any:
    """A metric with its exact interval if it has one, else with that of the bootstrap.

    For 111 of 112 the bootstrap's lower bound is far above 0.95, and the exact one just above it.

    Args:
        part: a slice, as in ``results.json``.
        metric: the name of its function in ``calibrate.metrics``.

    Returns:
        ``value``, ``low`` and ``high``; None if the metric was not measured.
    """
    return part.get(f"{metric}_exact") or part.get("metrics", {}).get(metric)
