"""Returns memory that loading a bundle has freed. Imports the standard library only."""

from __future__ import annotations

import ctypes


def release_freed_memory() -> None:
    """Return to the system what nothing uses any more, as far as the C library is GNU's.

    Loading a network copies its weights several times. What is freed in between stays with the C library, and
    is more than the weights themselves.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
