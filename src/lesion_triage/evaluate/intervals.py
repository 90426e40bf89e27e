"""Which interval of a metric is shown, wherever results are read. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def interval_of(part: Mapping[str, Any], metric: str) -> Any:
    """A metric with the interval that counts its cases, where it has one, else with the bootstrap's.

    The bootstrap's lower bound of 111 of 112 is above 0.95 by far, and the exact one is just above it.

    Args:
        part: a slice, as ``results.json`` holds it.
        metric: by the name of its function in ``calibrate.metrics``.

    Returns:
        What has a ``value``, a ``low`` and a ``high``; None where it was not measured.
    """
    return part.get(f"{metric}_exact") or part.get("metrics", {}).get(metric)
