"""Interleaves several pieces of work on one thread: a step of each, then the next. Imports nothing of ours.

A network evicts the processor's caches, and whatever follows it runs cold. So a few cases go through
preprocessing first, then through their networks, then through what follows. That costs less processor time
than one case after the other, and threads wait less for the interpreter (docs/adr/0075).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

Result = TypeVar("Result")

Steps = Generator[None, None, Result]
"""Cooperative work: a generator that yields at its switch points."""

SIDE_BY_SIDE = 4
"""Most pieces interleaved. Twice as many gain little, and the first of them waits for the last."""


def at_once(work: Callable[[], Result]) -> Steps[Result]:
    """Work that consists of a single step."""
    yield from ()
    return work()


def alone(steps: Steps[Result]) -> Result:
    """Run one piece of work to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def in_step(several: Sequence[Steps[Result]]) -> Iterator[list[tuple[int, Result | Exception]]]:
    """Run several pieces of work in turns, each up to its next yield. A failure stops no other piece.

    Yields:
        After each round in which any ended: their positions, with what each returned or raised.
    """
    going = list(enumerate(several))
    while going:
        ended: list[tuple[int, Result | Exception]] = []
        further = []
        for place, steps in going:
            try:
                next(steps)
            except StopIteration as end:
                ended.append((place, end.value))
            except Exception as error:  # for the caller of this piece
                ended.append((place, error))
            else:
                further.append((place, steps))
        if ended:
            yield ended
        going = further


def together(several: Sequence[Steps[Result]]) -> list[Result]:
    """Run several pieces of work in step.

    Returns:
        Their results, in order.

    Raises:
        Exception: that of the first failed piece, in the order given.
    """
    ends = sorted((end for ended in in_step(several) for end in ended), key=lambda end: end[0])
    results = []
    for _, outcome in ends:
        if isinstance(outcome, Exception):
            raise outcome
        results.append(outcome)
    return results
