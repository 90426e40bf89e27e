"""Commands that change the same file or link take turns. Imports the exceptions."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesion_triage.errors import ConfigError


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock from reading a file or link to replacing it; other commands wait.

    Readers need no lock. The lock file is removed at the end: one that belongs to root would lock the file's
    owner out.

    Raises:
        ConfigError: the lock file cannot be created beside it.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        handle = _acquire_lock(lock)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be changed: the lock file {lock.name} cannot be opened beside it "
            f"({error.strerror})."
        ) from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _acquire_lock(lock: Path) -> int:
    """Handle of the lock file, once we hold the lock and the file is still the one at its path."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        except FileNotFoundError:
            pass  # its holder has removed it
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
