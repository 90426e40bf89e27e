"""Several pieces of work side by side on one thread: a step of each, then the next. Imports nothing of ours.

A network empties the processor's caches, and what follows it runs cold. So what comes before the network is
done for a few cases in a row, then their networks, then what comes after: less work for the processor than
one case after the other, and less waiting of threads for the interpreter (docs/adr/0075).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

Result = TypeVar("Result")

Steps = Generator[None, None, Result]
"""Cooperative work: a generator that yields at its switch points."""

SIDE_BY_SIDE = 4
"""So many pieces at most: twice as many gain little more, and the first of them waits for the last."""


def at_once(work: Callable[[], Result]) -> Steps[Result]:
    """Work of one step."""
    yield from ()
    return work()


def alone(steps: Steps[Result]) -> Result:
    """Do one piece of work to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def in_step(several: Sequence[Steps[Result]]) -> Iterator[list[tuple[int, Result | Exception]]]:
    """Do several pieces of work, each as far as its next yield, in turns. One that fails stops no other.

    Yields:
        After each round in which any ended, those: their places, and what they returned or raised.
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
            except Exception as error:  # handed to whoever asked for this piece
                ended.append((place, error))
            else:
                further.append((place, steps))
        if ended:
            yield ended
        going = further


def together(several: Sequence[Steps[Result]]) -> list[Result]:
    """Do several pieces of work in step.

    Returns:
        What each returned, in their order.

    Raises:
        Exception: what the first in this order that failed has raised.
    """
    ends = sorted((end for ended in in_step(several) for end in ended), key=lambda end: end[0])
    results = []
    for _, outcome in ends:
        if isinstance(outcome, Exception):
            raise outcome
        results.append(outcome)
    return results
