from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lesion_triage.train import memory

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library: nothing is kept"
)
LARGE = 16 * 2**20  # numbers: 64 MB, above what the C library ever keeps by itself


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fill_and_free() -> None:
    torch.ones(LARGE)


def faults_of_one() -> int:
    """Pages that the system has to clear for one tensor, once the heap has settled."""
    for _ in range(10):
        fill_and_free()
    before = faults()
    fill_and_free()
    return faults() - before


def kept_and_given_back() -> tuple[int, int]:
    # Given back first: what was kept once may leave a hole in the heap that the next tensor fits into.
    given_back = faults_of_one()
    with memory.kept() as done:
        assert done
        return faults_of_one(), given_back


def test_memory_that_was_freed_is_used_again_without_asking_the_system():
    # In a process of its own: holes that other tests left in this one's heap are memory enough for either.
    asked = [sys.executable, "-c", "import test_memory; print(*test_memory.kept_and_given_back())"]
    said = subprocess.run(asked, cwd=Path(__file__).parent, check=True, capture_output=True, text=True).stdout
    kept, given_back = map(int, said.split())
    assert given_back > 100 * max(1, kept)


def test_what_was_kept_goes_back_to_the_system_in_the_end():
    with memory.kept():
        fill_and_free()
        inside = resident_bytes()
    assert resident_bytes() < inside - 4 * LARGE // 2


def test_memory_is_given_back_after_an_error_too():
    inside = 0

    @memory.kept()
    def fails() -> None:
        nonlocal inside
        fill_and_free()
        inside = resident_bytes()
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert resident_bytes() < inside - 4 * LARGE // 2
