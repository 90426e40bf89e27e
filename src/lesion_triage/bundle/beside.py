"""Shares the work of one case with idle threads. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from typing import Any


def from_both_ends(pieces: Sequence[Callable[[], Any]], helpers: Executor) -> list[Future[Any]]:
    """Run all pieces: the caller works forward from the first, the helpers backward from the last.

    The caller runs whatever no helper has started, so it never waits for a helper that is slow to start.

    Args:
        pieces: at least one; the caller always runs the first.
        helpers: threads that may run the others.

    Returns:
        One completed future for each piece, in order. A failed piece raises only when its result is read.
    """
    offered = [helpers.submit(piece) for piece in reversed(pieces[1:])][::-1]
    outcomes = [_done(pieces[0])]
    for piece, offer in zip(pieces[1:], offered, strict=True):
        outcomes.append(_done(piece) if offer.cancel() else offer)
    wait(outcomes)
    return outcomes


def _done(piece: Callable[[], Any]) -> Future[Any]:
    outcome: Future[Any] = Future()
    try:
        outcome.set_result(piece())
    except Exception as error:  # raised when the result is read
        outcome.set_exception(error)
    return outcome
