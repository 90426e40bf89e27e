"""Shares the work of one case with idle threads. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from typing import Any


def run_with_idle_threads(tasks: Sequence[Callable[[], Any]], executor: Executor) -> list[Future[Any]]:
    """Run all pieces: the caller works forward from the first, the helpers backward from the last.

    The caller runs whatever no helper has started, so it never waits for a helper that is slow to start.

    Args:
        tasks: at least one; the caller always runs the first.
        executor: threads that may run the others.

    Returns:
        One completed future for each piece, in order. A failed piece raises only when its result is read.
    """
    submitted = [executor.submit(task) for task in reversed(tasks[1:])][::-1]
    futures = [_run_to_future(tasks[0])]
    for task, future in zip(tasks[1:], submitted, strict=True):
        futures.append(_run_to_future(task) if future.cancel() else future)
    wait(futures)
    return futures


def _run_to_future(task: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(task())
    except Exception as error:  # raised when the result is read
        future.set_exception(error)
    return future
