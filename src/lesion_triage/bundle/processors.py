"""Processors available to this process, and work spread over them. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def affinity() -> int:
    """Processors that the scheduler grants this process; all of the machine's where unknown, as on macOS."""
    granted = getattr(os, "sched_getaffinity", None)
    return len(granted(0)) if granted else os.cpu_count() or 1


def mapped(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Apply a function to each item, on as many threads as there are processors.

    Args:
        work: threads may run it at the same time.
        items: its arguments.
        progress: called in this thread after each item, with (done, total).

    Returns:
        The results in the order of the items.

    Raises:
        Exception: that of the first failed item, in their order.
    """
    results: list[Result] = []
    with ThreadPoolExecutor(affinity()) as pool:
        for result in pool.map(work, items):
            results.append(result)
            if progress is not None:
                progress(len(results), len(items))
    return results
