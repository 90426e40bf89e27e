"""Which certificates have been issued on which cases. Imports the certificate, its writer and the locks.

Each choice of a threshold on the same cases spends confidence, if the best is then kept. So every look is
written down before its result is shown, and a second look must be asked for by name. The ledger is a file of
JSON lines that is only ever appended to.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from lesion_triage import locks
from lesion_triage.bundle.certificate import Certificate, Look
from lesion_triage.bundle.document import Sha256
from lesion_triage.bundle.files import append_line
from lesion_triage.errors import CalibrationError

NAME = "ledger.jsonl"


class Entry(Look):
    """A look as the ledger keeps it; a certificate carries less of it."""

    # A later version may write down more of a look, and that it was one is not lost on this one.
    model_config = ConfigDict(extra="ignore")

    files_sha256: Sha256 | None = None
    """Of the pictures' files, where ``cases_sha256`` is of their pixels, which another picture size changes.
    None in lines of earlier versions."""
    counted: bool = False
    """No threshold was chosen here: counts were given away, for one chosen elsewhere. ``threshold`` is
    the one that was in use."""

    def as_look(self) -> Look:
        """What a certificate carries."""
        return Look(**{name: getattr(self, name) for name in Look.model_fields})


def read(path: Path) -> tuple[Entry, ...]:
    """All looks, oldest first; none if the file does not exist.

    Raises:
        CalibrationError: it cannot be read, or a line is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(Entry.model_validate_json(line) for line in lines)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot be read ({error.strerror}), expected the ledger of looks; put it back, it says "
            "which calibration cases were used."
        ) from None
    except (UnicodeDecodeError, ValidationError):
        raise CalibrationError(
            f"{path}: a line is damaged; restore the ledger, it says which calibration cases were used."
        ) from None


@contextmanager
def held(path: Path) -> Iterator[tuple[Entry, ...]]:
    """All looks, to which nobody else adds while entered: of two at once, one is the second.

    Raises:
        CalibrationError: as ``read``; or its lock cannot be had.
    """
    with ExitStack() as stack:
        lock = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _lock_of(path)
            stack.enter_context(locks.held(lock))
        except OSError as error:
            raise _not_writable(lock, error) from None
        yield read(path)


def _lock_of(path: Path) -> Path:
    """What is locked while a look is added: a file beside the ledger, or itself where the folder takes none.

    Not always itself: on a share of Windows what is locked is written to by the handle alone that locked it.
    """
    lock = path.with_name(f".{path.name}.lock")
    return lock if lock.exists() or os.access(path.parent, os.W_OK) else path


def append(path: Path, entry: Entry) -> None:
    """Write a look down, to the disk, before anything is made of it.

    Raises:
        CalibrationError: it cannot be written; the ledger is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        append_line(path, json.dumps(entry.model_dump(mode="json"), sort_keys=True))
    except OSError as error:
        raise _not_writable(path, error) from None


def require_writable(path: Path) -> None:
    """Make sure, before anything is scored, that a look can be written down.

    Raises:
        CalibrationError: it cannot.
    """
    needed = path
    try:
        if path.exists():
            with path.open("ab"):
                pass
        else:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        needed = _lock_of(path)
        if needed.exists():
            with locks.opened(needed):
                pass
    except OSError as error:
        raise _not_writable(needed, error) from None


def _not_writable(path: Path, error: OSError) -> CalibrationError:
    return CalibrationError(
        f"{path}: cannot be written ({error.strerror}), and a look at cases is written down before anything "
        "is made of it; no certificate was issued."
    )


def look_of(certificate: Certificate, settings_sha256: str) -> Look:
    """The choice of a threshold that a certificate tells of."""
    return Look(
        looked_at=certificate.issued_at,
        purpose=certificate.purpose,
        site=certificate.site,
        cases_sha256=certificate.cases_sha256,
        positives=certificate.positives,
        target_sensitivity=certificate.target_sensitivity,
        confidence=certificate.confidence,
        threshold=certificate.threshold,
        model_sha256=certificate.model_sha256,
        settings_sha256=settings_sha256,
    )


def entry_of(certificate: Certificate, settings_sha256: str, files_sha256: str) -> Entry:
    """The line that a certificate leaves in the ledger."""
    return Entry(**dict(look_of(certificate, settings_sha256)), files_sha256=files_sha256)


def same_look(
    looks: Sequence[Entry], cases_sha256: str, model_sha256: str, settings_sha256: str
) -> Entry | None:
    """The look that would be repeated to the last digit; it spends nothing."""
    wanted = (cases_sha256, model_sha256, settings_sha256)
    return next((k for k in looks if (k.cases_sha256, k.model_sha256, k.settings_sha256) == wanted), None)


def at(
    looks: Sequence[Entry], cases_sha256: str, files_sha256: str, model_sha256: str | None = None
) -> tuple[Look, ...]:
    """The looks at these very pictures, in their order: the same pixels, or the same files at any size.

    Args:
        looks: of a ledger.
        cases_sha256: of the pictures' pixels.
        files_sha256: of their files.
        model_sha256: looks with this model are told too, whatever the pictures; None: only those at these.
    """
    return tuple(
        look.as_look()
        for look in looks
        if look.cases_sha256 == cases_sha256
        or look.files_sha256 == files_sha256
        or look.model_sha256 == model_sha256
    )


def require_asked_for(earlier: Sequence[Look], second_look: str) -> None:
    """Refuse a second look at the same cases that nobody asked for.

    Args:
        earlier: the looks at these cases so far.
        second_look: why they are looked at again; empty if nobody asked for that.

    Raises:
        CalibrationError: there are some, and nobody asked for another.
    """
    if earlier and not second_look:
        last = earlier[-1]
        times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
        raise CalibrationError(
            f"these calibration cases have chosen a threshold {times} before, last on {last.looked_at}. To "
            "choose again on the same cases spends confidence, so it is not done silently: say why with "
            "--set calibrate.second_look='...', which goes into the certificate."
        )
