"""Atomic file writes and durable line appends. Standard library."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside ``path``, flush to the disk, rename: whole, or not at all."""
    # Not the process's number alone: two machines that write to one disk may each have such a process.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Add a line to the end of a file, which is made if it is not there, and flush it to the disk.

    Half a line would be glued to the next one and read as damage ever after. So where the disk refuses, the
    file is cut to the length that it had. One process at a time.

    Args:
        path: the file; its folder exists. A last line without its newline, as an editor leaves it, is ended.
        line: without its newline.

    Raises:
        OSError: the disk is full, or refuses; no line was added.
    """
    with path.open("a+b", buffering=0) as stream:  # a buffer would be written again when it is closed
        length = stream.seek(0, os.SEEK_END)
        content = f"{line}\n".encode()
        if length and os.pread(stream.fileno(), 1, length - 1) != b"\n":
            content = b"\n" + content
        try:
            while content:
                content = content[stream.write(content) :]
            os.fsync(stream.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # the first refusal is the one to tell
                stream.truncate(length)
                os.fsync(stream.fileno())
            raise


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk: else a power cut can undo a write or a rename."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
