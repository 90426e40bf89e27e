"""Who promoted what, when and why, in an append-only file. Imports the bundle, the locks and the errors.

Each line carries the hash of the line before, so a line that was changed or removed is detected, except at
the end of the file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.files import append_line
from lesion_triage.errors import PromotionError
from lesion_triage.locks import hold_lock

FILE = "promotions.jsonl"
_FIRST = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One line."""

    event: Literal["asked", "done"]
    """asked: written before the registry is changed. done: written after. An asked without its done failed or
    was interrupted; the registry then knows whether the alias was moved."""
    at: str
    """UTC, ISO 8601."""
    by: str
    why: str
    alias: str
    model: str
    version: str
    bundle_sha256: str
    certificate_id: str
    replaced: str
    """SHA-256 of the bundle that the alias pointed at; empty: none."""
    accepted_regression: str
    """Why a regression was accepted; empty: none was."""


def read(run: Path) -> list[dict[str, Any]]:
    """Every line of a run, oldest first.

    Raises:
        PromotionError: the file cannot be read, or a line before the last was changed or removed.
    """
    return [json.loads(line) for line in _lines(run / FILE)]


def append(run: Path, entry: Entry) -> None:
    """Append a line and flush it to the disk. Of two processes one waits: each line names the one before.

    Raises:
        PromotionError: the record was altered, or cannot be written.
    """
    path = run / FILE
    try:
        with hold_lock(run / f".{FILE}.lock"):
            lines = _lines(path)
            previous = sha256_of(lines[-1].encode()) if lines else _FIRST
            line = {**asdict(entry), "previous_sha256": previous}
            append_line(path, json.dumps(line, sort_keys=True, ensure_ascii=False))
    except OSError as error:
        raise PromotionError(f"{path}: cannot be written ({error.strerror}); nothing was promoted.") from None


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise PromotionError(f"{path}: cannot be read ({error}).") from None
    # Not splitlines, which also splits at U+2028 and U+0085: a reason may contain them.
    lines = text.removesuffix("\n").split("\n") if text else []
    previous = _FIRST
    for number, line in enumerate(lines, start=1):
        try:
            stated = json.loads(line)["previous_sha256"]
        except (ValueError, KeyError, TypeError):
            stated = ""
        if stated != previous:
            raise PromotionError(
                f"{path}, line {number}: the record was altered, a line before it changed or is missing; "
                "restore it."
            )
        previous = sha256_of(line.encode())
    return lines
