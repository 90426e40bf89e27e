"""The folder of an audit log: its key, its lock, and how its files are opened.

Imports the bundle's writer and the exceptions.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from pathlib import Path

from lesion_triage.bundle.files import flush
from lesion_triage.errors import AuditLogError

KEY_FILE = "inputs.key"
_LOCK_FILE = "lock"


def create_folder(folder: Path) -> None:
    """Make the folder, readable by its owner alone, and missing parents; flush each new name to disk."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in missing:
        flush(one.parent)


def open_for_append(file: Path) -> tuple[int, int]:
    """Open a file for appending, making it if it is missing; its handle, and its size in bytes."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    return handle, os.fstat(handle).st_size


def lock_folder(folder: Path) -> int:
    """Take a lock that ends with the process, however it ends.

    Raises:
        AuditLogError: another process holds it.
    """
    handle = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise AuditLogError(
            f"{folder}: another server writes to this audit log; give each server its own folder."
        ) from None
    return handle


def read_or_create_key(folder: Path, *, begun: bool) -> bytes:
    """The site's key, made at the first start; the file appears atomically.

    Args:
        folder: of the log.
        begun: whether the folder has lines already, which were written with a key.

    Raises:
        AuditLogError: that key is gone, or as for ``read_key``.
    """
    file = folder / KEY_FILE
    if not file.exists():
        if begun:
            raise AuditLogError(
                f"{file} is missing, and the lines beside it were written with that key: restore it from "
                "its backup. If it is lost, leave this folder unchanged and name another."
            )
        draft = file.with_suffix(".tmp")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(file)
    return read_key(file)


def read_key(file: Path) -> bytes:
    """The key of a log folder.

    Raises:
        AuditLogError: not readable, or not 64 hexadecimal digits.
    """
    try:
        text = file.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise AuditLogError(f"{file}: cannot be read ({error.strerror}).") from None
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise AuditLogError(f"{file}: expected 64 hexadecimal digits; restore the key from its backup.")
    return bytes.fromhex(text)
