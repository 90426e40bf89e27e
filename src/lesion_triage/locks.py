"""Who is at work on what: locks that the kernel lets go of when a process dies. Standard library only."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def opened(path: Path) -> IO[str]:
    """The file of a lock, which is made if it is not there.

    Nothing is written to it. So one that somebody else made, and that may only be read, locks as well.

    Raises:
        OSError: it can be neither made nor read.
    """
    try:
        return path.open("a")
    except PermissionError:
        if not path.exists():
            raise
        return path.open()


@contextmanager
def held(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait for the lock of this name, and hold it while entered.

    Args:
        path: of the lock; its folder is made.
        waiting: called once where another process has the lock.

    Raises:
        OSError: the disk refuses, or knows no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened(path) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:  # and not by closing alone: a process forked meanwhile would hold it on
            fcntl.flock(stream, fcntl.LOCK_UN)


def taken(path: Path) -> IO[str] | None:
    """Take the lock of this name if nobody has it.

    Returns:
        What holds the lock until it is closed, or None: a living process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = opened(path)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream
