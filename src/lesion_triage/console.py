"""Output and arguments of the command line: lines, progress bars, whole numbers. Imports rich only."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total)."""

_LINE_EVERY_SECONDS = 15.0


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line: Rich would end the process with 1, which means done."""
        raise BrokenPipeError


console = _Console(highlight=False, soft_wrap=True)


def echo(text: str) -> None:
    """Print one line at once, also when the output is a pipe."""
    console.print(text, markup=False)  # Rich flushes


def integer_from(minimum: int) -> Callable[[str], int]:
    """An argument's type: a whole number, at least ``minimum``, which is not negative."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"expected a whole number from {minimum} up, found '{text}'")
        return int(text)

    return parse


@contextmanager
def progress_bar(title: str) -> Iterator[ProgressCallback]:
    """Progress of one piece of work: a bar in a terminal, otherwise an occasional line."""
    if not console.is_terminal:
        yield _progress_lines(title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _progress_lines(title: str) -> ProgressCallback:
    last = time.monotonic()

    def tick(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY_SECONDS:
            last = time.monotonic()
            echo(f"  {title}: {done}/{total}")

    return tick
