"""Which calibration cases have chosen which thresholds. Imports the certificate, its writer and the locks.

Choosing several thresholds on the same cases and keeping the best spends confidence. So every look is
recorded before its result is shown, and a second look must be requested with a reason. The ledger is an
append-only file of JSON lines.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from lesion_triage import locks
from lesion_triage.bundle.certificate import Certificate, Look
from lesion_triage.bundle.document import Sha256
from lesion_triage.bundle.files import append_line
from lesion_triage.bundle.fingerprints import Fingerprint
from lesion_triage.errors import CalibrationError

LEDGER_FILE_NAME = "ledger.jsonl"


class Entry(Look):
    """A look as the ledger keeps it; a certificate carries less of it."""

    # A later version may record more about a look; this one must still count it.
    model_config = ConfigDict(extra="ignore")

    files_sha256: Sha256 | None = None
    """Of the pictures' files. ``cases_sha256`` is of their pixels, which change with the input size. None in
    lines of earlier versions."""
    pictures: tuple[Fingerprint, ...] | None = None
    """Fingerprints of each picture's file and of its prepared pixels, sorted: by them a look at some of these
    cases is recognised. They name a picture only to those who have it. None in lines of earlier versions."""
    counted: bool = False
    """True for a tally: no threshold was chosen here, but counts were passed on to choose one elsewhere.
    ``threshold`` is then the one in use."""

    def as_look(self) -> Look:
        """The fields that a certificate carries."""
        return Look(**{name: getattr(self, name) for name in Look.model_fields})


def read(path: Path) -> tuple[Entry, ...]:
    """All looks, oldest first; none if the file does not exist.

    Raises:
        CalibrationError: it cannot be read, or a line is damaged.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise CalibrationError(
            f"{path}: the ledger of looks cannot be read ({error.strerror}); restore it, it records which "
            "calibration cases were used."
        ) from None
    return tuple(_parse(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1))


def _parse(line: bytes, place: str) -> Entry:
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        raise CalibrationError(
            f"{place} is damaged; restore the ledger, it records which calibration cases were used."
        ) from None


@contextmanager
def locked(path: Path) -> Iterator[tuple[Entry, ...]]:
    """All looks, with the ledger locked: of two concurrent looks, one counts as the second.

    Raises:
        CalibrationError: as ``read``; or the lock file cannot be opened.
    """
    with ExitStack() as stack:
        lock = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _lock_path(path)
            stack.enter_context(locks.hold_lock(lock))
        except OSError as error:
            raise _not_writable(lock, error) from None
        yield read(path)


def _lock_path(path: Path) -> Path:
    """The file to lock while a look is added: one beside the ledger, or the ledger if none can be made.

    The ledger itself is the second choice: on a Windows share, only the handle that holds the lock can write
    to a locked file.
    """
    lock = path.with_name(f".{path.name}.lock")
    return lock if lock.exists() or os.access(path.parent, os.W_OK) else path


def append(path: Path, entry: Entry) -> None:
    """Append a look and flush it to the disk, before its result is used.

    Raises:
        CalibrationError: it cannot be written; the ledger is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        append_line(path, json.dumps(entry.model_dump(mode="json"), sort_keys=True))
    except OSError as error:
        raise _not_writable(path, error) from None


def require_writable(path: Path) -> None:
    """Make sure, before anything is scored, that a look can be recorded.

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
        needed = _lock_path(path)
        if needed.exists():
            with locks.open_lock_file(needed):
                pass
    except OSError as error:
        raise _not_writable(needed, error) from None


def _not_writable(path: Path, error: OSError) -> CalibrationError:
    return CalibrationError(
        f"{path}: cannot be written ({error.strerror}). Every look at cases is recorded here before its "
        "result is used; no certificate was issued."
    )


def look_from_certificate(certificate: Certificate, settings_sha256: str) -> Look:
    """The look that a certificate records."""
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


def entry_from_certificate(
    certificate: Certificate, settings_sha256: str, files_sha256: str, fingerprints: Collection[str]
) -> Entry:
    """The line that a certificate leaves in the ledger.

    Args:
        certificate: whose threshold was chosen.
        settings_sha256: of everything else that decided the result.
        files_sha256: of the set of files.
        fingerprints: of each picture's file and pixels.
    """
    return Entry(
        **dict(look_from_certificate(certificate, settings_sha256)),
        files_sha256=files_sha256,
        pictures=tuple(sorted(set(fingerprints))),
    )


def find_repeated_look(
    looks: Sequence[Entry], cases_sha256: str, model_sha256: str, settings_sha256: str
) -> Entry | None:
    """The earlier look that this one would repeat exactly, if any: repeating it spends no confidence."""
    wanted = (cases_sha256, model_sha256, settings_sha256)
    return next((k for k in looks if (k.cases_sha256, k.model_sha256, k.settings_sha256) == wanted), None)


def looks_at_pictures(
    looks: Sequence[Entry],
    cases_sha256: str,
    files_sha256: str,
    fingerprints: Collection[str],
    model_sha256: str | None = None,
) -> tuple[Look, ...]:
    """The looks at any of these pictures, in order: the same pixels, or the same file at any input size.

    A look whose line has no pictures, as earlier versions wrote it, counts if it was at exactly these.

    Args:
        looks: of a ledger.
        cases_sha256: of the set of the pictures' pixels.
        files_sha256: of the set of their files.
        fingerprints: of each picture's file and pixels.
        model_sha256: include looks with this model too, whatever the pictures. None: only looks at these.
    """
    ours = frozenset(fingerprints)
    return tuple(
        look.as_look()
        for look in looks
        if look.cases_sha256 == cases_sha256
        or look.files_sha256 == files_sha256
        or look.model_sha256 == model_sha256
        or not ours.isdisjoint(look.pictures or ())
    )


def require_second_look_reason(earlier: Sequence[Look], second_look: str) -> None:
    """Refuse a second look at the same cases that was not requested.

    Args:
        earlier: the looks at these cases so far.
        second_look: the reason for another look; empty if none was requested.

    Raises:
        CalibrationError: there are earlier looks, and another was not requested.
    """
    if earlier and not second_look:
        last = earlier[-1]
        times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
        raise CalibrationError(
            f"a threshold was chosen on these calibration cases, or on some of them, {times} before, last on "
            f"{last.looked_at}. Choosing again on the same cases spends confidence: give the reason with "
            "--set calibrate.second_look='...'; it is recorded in the certificate."
        )
