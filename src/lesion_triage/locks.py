"""Locks between processes, which the kernel releases when a process dies. Standard library only."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def open_lock_file(path: Path) -> IO[str]:
    """Open the file of a lock, created if missing.

    Nothing is written to it, so a file that somebody else created and that is only readable works too.

    Raises:
        OSError: it can be neither created nor read.
    """
    try:
        return path.open("a")
    except PermissionError:
        if not path.exists():
            raise
        return path.open()


@contextmanager
def hold_lock(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait for the lock at this path, and hold it while entered.

    Args:
        path: of the lock; its folder is created.
        on_wait: called once if another process has the lock.

    Raises:
        OSError: the disk refuses, or does not support locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_lock_file(path) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:  # closing alone is not enough: a process forked meanwhile would keep holding it
            fcntl.flock(stream, fcntl.LOCK_UN)


def try_lock(path: Path) -> IO[str] | None:
    """Take the lock at this path if it is free.

    Returns:
        A file that holds the lock until it is closed; None: a living process has the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = open_lock_file(path)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream
