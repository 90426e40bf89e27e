"""Processors that this process may use, and work spread over them. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def affinity() -> int:
    """Processors that the scheduler grants this process; all of the machine where it cannot say, as macOS."""
    granted = getattr(os, "sched_getaffinity", None)
    return len(granted(0)) if granted else os.cpu_count() or 1


def mapped(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Do the work for each item, as many at once as there are processors.

    Args:
        work: what threads may do side by side.
        items: what it is done for.
        progress: told in this thread, item by item, how many are done, and of how many.

    Returns:
        The results in the order of the items.

    Raises:
        Exception: what the work for the first item that failed has raised.
    """
    results: list[Result] = []
    with ThreadPoolExecutor(affinity()) as pool:
        for result in pool.map(work, items):
            results.append(result)
            if progress is not None:
                progress(len(results), len(items))
    return results
