"""What a folder of results belongs to, and the content of its summary. Nothing else may be scored into it.

Imports onnxruntime for its version, the rows, the bundle and the exception tree.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal

import onnxruntime as ort
from pydantic import ValidationError

from lesion_triage import __version__
from lesion_triage.backlog.rows import Extra
from lesion_triage.bundle.document import Document, Sha256
from lesion_triage.bundle.pixels import decoder_versions
from lesion_triage.errors import BacklogError

STATE = "run.json"


class Options(Document):
    """The user's choices that affect the rows."""

    part_cases: int
    extras: tuple[Extra, ...] = ()
    """Sorted."""
    language: str = "en"


class State(Document):
    """What a folder of results belongs to. Nothing else may be scored into it."""

    format: Literal[2] = 2  # 1: the list of cases had no hashes
    bundle_sha256: Sha256
    certificate_id: str
    listing_sha256: Sha256
    cases: int
    photographs: int
    images: str
    """What the paths of photographs are relative to."""
    table: str | None
    """The parquet file that contains the photographs; None if they are files."""
    options: Options
    software: dict[str, str]
    """Versions of what decides the last bit of a score."""

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-self.cases // self.options.part_cases)

    def part_rows(self, part: int) -> int:
        """Number of cases of a part."""
        return min(self.options.part_cases, self.cases - part * self.options.part_cases)


class Summary(Document):
    """Outcome of a backlog."""

    run_sha256: Sha256
    """Hash of ``run.json``."""
    cases: int
    photographs: int
    dispositions: dict[str, int]
    """Including ``not_scored``."""
    priority_bands: dict[str, int]
    errors: dict[str, int]
    """Cases that could not be scored, by ``error_code``."""


_DIFFERENCE_TEXTS = {
    "bundle_sha256": "another bundle",
    "listing_sha256": "other cases",
    "images": "another folder of photographs",
    "table": "another table",
    "options": "other options (--with, --language or --part-cases)",
    "software": "another version of lesion-triage, onnxruntime, Pillow or a library that it decodes with",
}


def software() -> dict[str, str]:
    """Versions of everything that decides the last bit of a score on this machine."""
    return {
        "lesion-triage": __version__,
        "onnxruntime": ort.__version__,
        **decoder_versions(),
        "machine": platform.machine(),
    }


def read_state(folder: Path) -> State:
    """Read what a folder belongs to.

    Raises:
        BacklogError: there is no such file, or it cannot be read.
    """
    path = folder / STATE
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BacklogError(f"{path}: not found, expected a folder that score-batch has started.") from None
    except OSError as error:
        raise BacklogError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValidationError:
        raise BacklogError(
            f"{path}: was not written by this release of score-batch; name another folder."
        ) from None


def require_same(folder: Path, begun: State, wanted: State) -> None:
    """Refuse to continue a folder with anything else than it was started with.

    Raises:
        BacklogError: names what differs.
    """
    for name, what in _DIFFERENCE_TEXTS.items():
        if getattr(begun, name) != getattr(wanted, name):
            raise BacklogError(
                f"{folder}: was started with {what}; one folder holds the results of one backlog by one "
                "bundle. Name a new folder, or give what this one was started with."
            )
