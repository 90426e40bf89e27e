"""Interleaves several pieces of work on one thread: a step of each, then the next. Imports nothing of ours.

A network evicts the processor's caches, and whatever follows it runs cold. So a few cases go through
preprocessing first, then through their networks, then through what follows. That costs less processor time
than one case after the other, and threads wait less for the interpreter (docs/adr/0075).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

Result = TypeVar("Result")

SteppedTask = Generator[None, None, Result]
"""Cooperative work: a generator that yields at its switch points."""

MAX_INTERLEAVED = 4
"""Most pieces interleaved. Twice as many gain little, and the first of them waits for the last."""


def single_step(function: Callable[[], Result]) -> SteppedTask[Result]:
    """Work that consists of a single step."""
    yield from ()
    return function()


def run_to_completion(task: SteppedTask[Result]) -> Result:
    """Run one piece of work to its end."""
    while True:
        try:
            next(task)
        except StopIteration as end:
            result: Result = end.value
            return result


def interleave(tasks: Sequence[SteppedTask[Result]]) -> Iterator[list[tuple[int, Result | Exception]]]:
    """Run several pieces of work in turns, each up to its next yield. A failure stops no other piece.

    Yields:
        After each round in which any ended: their positions, with what each returned or raised.
    """
    running = list(enumerate(tasks))
    while running:
        finished: list[tuple[int, Result | Exception]] = []
        unfinished = []
        for position, task in running:
            try:
                next(task)
            except StopIteration as end:
                finished.append((position, end.value))
            except Exception as error:  # for the caller of this piece
                finished.append((position, error))
            else:
                unfinished.append((position, task))
        if finished:
            yield finished
        running = unfinished


def run_interleaved(tasks: Sequence[SteppedTask[Result]]) -> list[Result]:
    """Run several pieces of work in step.

    Returns:
        Their results, in order.

    Raises:
        Exception: that of the first failed piece, in the order given.
    """
    outcomes = sorted((end for finished in interleave(tasks) for end in finished), key=lambda end: end[0])
    results = []
    for _, outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        results.append(outcome)
    return results
