"""Share one case's work with idle threads. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from typing import Any


def from_both_ends(pieces: Sequence[Callable[[], Any]], helpers: Executor) -> list[Future[Any]]:
    """Run all pieces: the caller works forward from the first, the helpers backward from the last.

    What the helpers have not begun is done here, so nothing waits for a helper that is slow to come.

    Args:
        pieces: at least one; the first is always done here.
        helpers: threads that may do the others.

    Returns:
        The outcome of each, in their order, all there. One that failed raises when it is asked for: whoever
        does not need it never learns of it.
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
    except Exception as error:  # raised again where it is asked for
        outcome.set_exception(error)
    return outcome
