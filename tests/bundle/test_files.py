"""A file that others read is whole, or it is as it was."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lesion_triage.bundle.files import append_line, write_atomically


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError):
        write_atomically(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_lines_follow_one_another_also_where_the_last_newline_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    path.write_text(path.read_text().rstrip("\n"))
    append_line(path, "zwö\u2028lf")
    append_line(path, "three")
    assert path.read_text(encoding="utf-8").split("\n") == ["one", "zwö\u2028lf", "three", ""]


@pytest.mark.parametrize("fitting_bytes", [0, 1, 5])
def test_a_line_that_the_disk_has_no_room_for_leaves_no_half_of_it(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]], fitting_bytes: int
) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    with full_disk(path.stat().st_size + fitting_bytes), pytest.raises(OSError, match="too large"):
        append_line(path, "two and more")
    assert path.read_text() == "one\n"
    append_line(path, "three")
    assert path.read_text() == "one\nthree\n"


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="mounting a small disk takes root on Linux"
)
def test_on_a_disk_that_is_really_full_no_half_of_a_line_is_left(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(
            f"NO SMALL DISK ({mounted.stderr.strip()}): a full disk was tried by a limit on files only"
        )
    try:
        path = tmp_path / "lines"
        append_line(path, "one")
        with pytest.raises(OSError, match="No space left"):
            append_line(path, "two" * 30_000)
        assert path.read_text() == "one\n"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
