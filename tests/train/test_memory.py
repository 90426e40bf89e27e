from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
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
    with memory.retain_freed_memory() as done:
        assert done
        return faults_of_one(), given_back


def inside_and_after() -> tuple[int, int]:
    with memory.retain_freed_memory():
        fill_and_free()
        inside = resident_bytes()
    return inside, resident_bytes()


def inside_and_after_an_error() -> tuple[int, int]:
    inside = 0

    @memory.retain_freed_memory()
    def fails() -> None:
        nonlocal inside
        fill_and_free()
        inside = resident_bytes()
        raise KeyError

    with suppress(KeyError):
        fails()
    return inside, resident_bytes()


def in_a_heap_of_its_own(measure: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """Holes that other tests left in this process's heap are memory enough for a tensor, kept or not."""
    asked = [sys.executable, "-c", f"import test_memory; print(*test_memory.{measure.__name__}())"]
    said = subprocess.run(asked, cwd=Path(__file__).parent, check=True, capture_output=True, text=True).stdout
    first, second = map(int, said.split())
    return first, second


def test_memory_that_was_freed_is_used_again_without_asking_the_system():
    retain_freed_memory, given_back = in_a_heap_of_its_own(kept_and_given_back)
    assert given_back > 100 * max(1, retain_freed_memory)


@pytest.mark.parametrize("measure", [inside_and_after, inside_and_after_an_error])
def test_what_was_kept_goes_back_to_the_system_in_the_end_and_after_an_error(measure):
    inside, after = in_a_heap_of_its_own(measure)
    assert after < inside - 4 * LARGE // 2
