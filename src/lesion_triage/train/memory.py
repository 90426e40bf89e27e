"""Keeps freed memory for the next step during training. Imports the standard library only.

The C library returns large blocks to the system as soon as they are free, and the next step's activations get
pages that the system must first zero: a third of a step's time or more (docs/training.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# malloc.h of the GNU C library, with its defaults.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
TRIM_THRESHOLD_BYTES, MMAP_MAX = 128 * 1024, 65536


@contextmanager
def retain_freed_memory() -> Iterator[bool]:
    """Inside, freed memory stays with the process; it is returned at the end.

    No computed number changes. If the C library is not GNU's, nothing happens.

    Yields:
        Whether the C library accepted the settings.
    """
    library = ctypes.CDLL(None)
    mallopt, trim = getattr(library, "mallopt", None), getattr(library, "malloc_trim", None)
    if mallopt is None or trim is None:
        yield False
        return
    done = mallopt(M_MMAP_MAX, 0) == 1 and mallopt(M_TRIM_THRESHOLD, -1) == 1
    try:
        yield done
    finally:
        mallopt(M_MMAP_MAX, MMAP_MAX)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
        trim(0)
