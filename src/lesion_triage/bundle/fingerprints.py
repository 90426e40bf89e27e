"""Which pictures a bundle has already used, so that none of them is used again to certify it.

Imports numpy, pydantic and the exception tree. A fingerprint is the first 16 digits of a SHA-256: of the
file, and of the prepared pixels, which stay the same when a platform strips a photograph's metadata. It
tells those who have the picture that it was used, and tells others nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import StringConstraints

from lesion_triage.errors import BundleError

FINGERPRINT_DIGITS = 16
Fingerprint = Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{FINGERPRINT_DIGITS}}}$")]
_LINES = re.compile(rf"(?:[0-9a-f]{{{FINGERPRINT_DIGITS}}}\n)*")


def file_fingerprint(sha256: str) -> str:
    """Fingerprint of a file with this SHA-256."""
    return sha256[:FINGERPRINT_DIGITS]


def pixel_fingerprint(pixels: NDArray[np.uint8]) -> str:
    """Fingerprint of prepared pixels, shape (size, size, 3)."""
    digest = hashlib.sha256(f"pixels {pixels.shape}\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


@dataclass(frozen=True, slots=True)
class UsedPictures:
    """Fingerprints of used pictures, as in a bundle's text files: one a line, sorted, no duplicates."""

    fitted: str = ""
    """Pictures that chose the model or its calibrator; they can never certify it."""
    certified: str = ""
    """Pictures that chose a threshold; each further look at them must be requested and is recorded."""

    def __post_init__(self) -> None:
        for name in ("fitted", "certified"):
            text: str = getattr(self, name)
            lines = text.splitlines()
            if not _LINES.fullmatch(text) or any(a >= b for a, b in pairwise(lines)):
                raise BundleError(
                    f"the fingerprints of {name} pictures are not {FINGERPRINT_DIGITS} hexadecimal digits a "
                    "line, sorted and distinct; copy the bundle again."
                )

    def with_certified(self, fingerprints: Iterable[str]) -> UsedPictures:
        """A copy in which these pictures, too, have chosen a threshold."""
        return UsedPictures(self.fitted, format_fingerprints((*self.certified.splitlines(), *fingerprints)))


def format_fingerprints(fingerprints: Iterable[str]) -> str:
    """One a line, sorted, no duplicates."""
    return "".join(f"{fingerprint}\n" for fingerprint in sorted(set(fingerprints)))
