"""Processors available to this process, and work spread over them. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cpus() -> int:
    """Processors that the scheduler grants this process; all of the machine's where unknown, as on macOS."""
    granted = getattr(os, "sched_getaffinity", None)
    return len(granted(0)) if granted else os.cpu_count() or 1


def thread_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Apply a function to each item, on as many threads as there are processors.

    Args:
        function: threads may run it at the same time.
        items: its arguments.
        progress: called in this thread after each item, with (done, total).

    Returns:
        The results in the order of the items.

    Raises:
        Exception: that of the first failed item, in their order.
    """
    results: list[Result] = []
    with ThreadPoolExecutor(available_cpus()) as pool:
        for result in pool.map(function, items):
            results.append(result)
            if progress is not None:
                progress(len(results), len(items))
    return results
