"""Atomic file writes and durable line appends. Standard library."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file beside ``path``, flush to disk, rename: the file is complete or absent."""
    temporary = temporary_path(path)
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """A free name beside ``path`` for a file or folder that is renamed to it when complete."""
    # The process id alone is not unique: two machines that share a disk may have the same one.
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def remove_with_leftovers(path: Path) -> None:
    """Remove a file or folder, if there, and every temporary one of writes to it that were killed.

    Nobody else may be writing to ``path``.
    """
    for found in (path, *path.parent.glob(f".{glob.escape(path.name)}.*.tmp")):
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, created if missing, and flush it to disk. One process at a time.

    If the write fails, the file is truncated to its former length: half a line would be joined to the next
    and read as damage from then on.

    Args:
        path: the file; its folder exists. A last line without newline, as editors leave it, is ended first.
        line: without its newline.

    Raises:
        OSError: the disk is full or refuses; no line was added.
    """
    with path.open("a+b", buffering=0) as stream:  # a buffer would be written again on close
        length = stream.seek(0, os.SEEK_END)
        content = f"{line}\n".encode()
        if length and os.pread(stream.fileno(), 1, length - 1) != b"\n":
            content = b"\n" + content
        try:
            while content:
                content = content[stream.write(content) :]
            os.fsync(stream.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to report
                stream.truncate(length)
                os.fsync(stream.fileno())
            raise


def flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk: otherwise a power cut can undo a write or a rename."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
