"""Fetches a dataset: licence, disk space, files, pictures one by one. Imports this package and console.

What was downloaded, from where, with which hash and under which licence is in ``FETCHED.json`` beside it.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from pydantic import ValidationError

from lesion_triage.bundle.files import write_atomically
from lesion_triage.console import ProgressCallback, echo, progress_bar
from lesion_triage.data.catalogue.checksums import describe_mismatch, sha256_and_md5
from lesion_triage.data.catalogue.download import (
    DownloadedFile,
    RetryPolicy,
    UnavailableFile,
    download,
    open_session,
    reporting_write_errors,
)
from lesion_triage.data.catalogue.entry import Dataset, Listed, RemoteFile
from lesion_triage.data.catalogue.unpack import is_archive, unpack
from lesion_triage.errors import DownloadError, hint

RECORD = "FETCHED.json"
FIGSHARE = "https://api.figshare.com/v2"

_SAVE_EVERY = 200
_UNVERIFIABLE = "nothing, not even its length"


@dataclass
class DownloadRecord:
    """What we downloaded into a folder; kept beside the files."""

    path: Path
    dataset: str
    licence: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, entry: Dataset, licence: str) -> DownloadRecord:
        """Read the record of a folder, or start one.

        Raises:
            DownloadError: the folder holds another dataset, or the record is damaged.
        """
        path = folder / RECORD
        if not path.exists():
            return cls(path, entry.name, licence)
        try:
            content = json.loads(path.read_bytes())
            dataset, files = content["dataset"], dict(content["files"])
        except (OSError, ValueError, KeyError, TypeError):
            raise DownloadError(f"{path}: damaged; remove it, and the files are verified again.") from None
        if dataset != entry.name:
            raise DownloadError(f"{folder}: holds {dataset}; choose another folder for {entry.name}.")
        return cls(path, entry.name, licence, files)

    def with_recorded_hash(self, wanted: RemoteFile) -> RemoteFile:
        """The file with the hash of its first download, if the publisher states none.

        A download that may have been cut short is not used as a reference.
        """
        before = self.files.get(wanted.name, {}).get("sha256")
        if wanted.sha256 or wanted.md5 or not isinstance(before, str) or self.is_unverifiable(wanted):
            return wanted
        return wanted.model_copy(
            update={"sha256": before, "checksum_from": f"{RECORD}, at the first download"}
        )

    def is_unverifiable(self, wanted: RemoteFile) -> bool:
        """Whether neither publisher nor server stated the file's length."""
        return self.files.get(wanted.name, {}).get("verified") == _UNVERIFIABLE

    def add(
        self, wanted: RemoteFile, url: str | None, sha256: str, size_bytes: int, verifiable: bool = True
    ) -> None:
        """Record a file that is present, and what proves that it is complete."""
        verified = "published checksum" if wanted.sha256 or wanted.md5 else "first use"
        self.files[wanted.name] = {
            "url": url,
            "size_bytes": size_bytes,
            "sha256": sha256,
            "verified": verified if verifiable else _UNVERIFIABLE,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def save(self) -> None:
        """Write it atomically.

        Raises:
            DownloadError: the disk is full, or refuses.
        """
        content = {"dataset": self.dataset, "licence_accepted": self.licence, "files": self.files}
        with reporting_write_errors(self.path):
            write_atomically(self.path, json.dumps(content, indent=1, sort_keys=True).encode())


def fetch(
    entry: Dataset,
    folder: Path,
    accepted_licence: str,
    *,
    only: Sequence[str] = (),
    unpack_too: bool = False,
    retry_policy: RetryPolicy | None = None,
    figshare: str = FIGSHARE,
) -> int:
    """Download a dataset into a folder. Complete files are kept; interrupted downloads are resumed.

    Returns:
        Number of files that the publisher's own table names but does not offer.

    Raises:
        DownloadError: see `download`; also a licence that was not accepted, a disk that is too small, a
            folder that cannot be created, a file that is not in the catalogue.
    """
    require_licence(entry, accepted_licence)
    with open_session() as session:
        files = _selected_files(entry, _available_files(entry, session, figshare), only)
        with reporting_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        record = DownloadRecord.open(folder, entry, accepted_licence)
        _require_disk_space(files, folder, unpack_too)
        for wanted in files:
            _fetch_file(session, wanted, folder, record, retry_policy)
            record.save()
        absent = 0
        if entry.listed is not None and not only:
            absent = _fetch_listed_pictures(session, entry.listed, folder, record, retry_policy)
    for wanted in files:
        if unpack_too and is_archive(folder / wanted.name):
            _unpack_archive(folder / wanted.name, folder)
    return absent


def require_licence(entry: Dataset, accepted: str) -> None:
    """Raise unless the dataset's licence was accepted by name.

    Raises:
        DownloadError: there is nothing to fetch, or another licence or none was accepted.
    """
    if entry.licence is None or not entry.fetchable:
        raise DownloadError(
            f"{entry.name}: there is nothing to fetch; see `lesion-triage datasets show {entry.name}`."
        )
    if accepted.casefold() != entry.licence.id.casefold():
        found = f"found '{accepted}'" if accepted else "none was accepted"
        raise DownloadError(
            f"{entry.name} comes under {entry.licence.name}, and {found}. Read {entry.licence.url}; if you "
            f"accept it, give --accept-licence {entry.licence.id}"
        )


def _available_files(entry: Dataset, session: requests.Session, figshare: str) -> tuple[RemoteFile, ...]:
    """The files in the catalogue; for a Figshare record those that it lists now, with its checksums."""
    if entry.figshare_article is None:
        return entry.files
    url = f"{figshare}/articles/{entry.figshare_article}/files?page_size=100"
    try:
        answer = session.get(url, timeout=(20, 60))
        answer.raise_for_status()
        return tuple(
            RemoteFile(
                name=content["name"],
                urls=(content["download_url"],),
                size_bytes=content["size"],
                md5=content["computed_md5"],
                checksum_from="Figshare",
            )
            for content in answer.json()
        )
    except (requests.RequestException, ValidationError, KeyError, TypeError, ValueError) as error:
        why = type(error).__name__ if isinstance(error, ValidationError) else error
        raise DownloadError(
            f"{url}: expected a list of files, found none ({why}); get them by hand."
        ) from None


def _selected_files(entry: Dataset, offered: Sequence[RemoteFile], only: Sequence[str]) -> list[RemoteFile]:
    known = {file.name: file for file in offered}
    for name in only:
        if name not in known:
            raise DownloadError(f"{entry.name} has no file '{name}'; {hint(name, known)}")
    return [known[name] for name in only] if only else [file for file in offered if not file.optional]


def _require_disk_space(files: Sequence[RemoteFile], folder: Path, unpack_too: bool) -> None:
    """Check, before any request, that there is room for what is missing, as far as sizes are known."""
    missing = 0
    for wanted in files:
        planned, final = wanted.planned_bytes or 0, folder / wanted.name
        part = final.with_name(f"{final.name}.part")
        present_bytes = planned if final.exists() else part.stat().st_size if part.exists() else 0
        missing += max(0, planned - present_bytes)
        # Pictures hardly compress: unpacked they take about as much again.
        missing += planned if unpack_too and is_archive(final) else 0
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise DownloadError(
            f"{folder}: about {missing:,} more bytes are needed, the disk has {free:,} free. Make room or "
            "choose another folder with --to; nothing was downloaded."
        )


def _fetch_file(
    session: requests.Session,
    wanted: RemoteFile,
    folder: Path,
    record: DownloadRecord,
    retry_policy: RetryPolicy | None,
) -> None:
    final, known = folder / wanted.name, record.with_recorded_hash(wanted)
    if final.exists():
        sha256, md5 = sha256_and_md5(final)
        wrong = describe_mismatch(known, final.stat().st_size, sha256, md5)
        if wrong:
            raise DownloadError(f"{final}: {wrong}. It was not changed; move it away to download it again.")
        echo(f"  {wanted.name}: already there, {_verification(known, not record.is_unverifiable(wanted))}")
        if wanted.name not in record.files:
            record.add(wanted, None, sha256, final.stat().st_size)
        return
    with progress_bar(f"{wanted.name}, MB") as tick:
        result = download(session, known, final, _in_megabytes(tick), retry_policy)
    if isinstance(result, UnavailableFile):
        raise DownloadError(
            f"{wanted.name}: not at its official address ({result.why}); it may have moved. Get it by hand: "
            "`lesion-triage datasets show` has the steps; and report it."
        )
    record.add(wanted, result.url, result.sha256, result.size_bytes, result.verifiable)
    resumed = ", resumed" if result.resumed else ""
    echo(f"  {wanted.name}: {result.size_bytes:,} bytes{resumed}, {_verification(known, result.verifiable)}")


def _verification(known: RemoteFile, verifiable: bool) -> str:
    if not verifiable:
        return (
            "NOT VERIFIED: neither publisher nor server states its length, so it may be truncated; open "
            "it, or remove it and fetch it again"
        )
    if known.sha256 or known.md5:
        return f"verified: {'SHA-256' if known.sha256 else 'MD5'} of {known.checksum_from}"
    return f"no checksum is published; its SHA-256 is recorded in {RECORD} and trusted from now on"


def _in_megabytes(tick: ProgressCallback) -> ProgressCallback:
    return lambda done, total: tick(done // 1_000_000, total // 1_000_000)


def _fetch_listed_pictures(
    session: requests.Session,
    listed: Listed,
    folder: Path,
    record: DownloadRecord,
    retry_policy: RetryPolicy | None,
) -> int:
    """Fetch pictures that are published one by one. Returns how many their publisher does not have."""
    names = sorted(set(_picture_names(folder / listed.table, listed.columns)))
    absent: list[str] = []
    unverifiable = 0
    with progress_bar("pictures") as tick:
        for number, name in enumerate(names, 1):
            try:
                wanted = RemoteFile(name=name, urls=(listed.base_url + quote(name),))
            except ValidationError:
                raise DownloadError(
                    f"{folder / listed.table}: '{name}' is not the path of a picture."
                ) from None
            if not (folder / name).exists():
                result = download(
                    session, record.with_recorded_hash(wanted), folder / name, _no_progress, retry_policy
                )
                if isinstance(result, DownloadedFile):
                    record.add(
                        wanted,
                        result.url,
                        result.sha256,
                        result.size_bytes,
                        result.verifiable,
                    )
                    unverifiable += not result.verifiable
                else:
                    absent.append(name)
            if number % _SAVE_EVERY == 0:
                record.save()
            tick(number, len(names))
    record.save()
    echo(f"  {len(names) - len(absent):,} of {len(names):,} pictures are there; no checksums are published")
    if unverifiable:
        echo(f"  {unverifiable:,} came without a length and may be truncated: `manifest` opens every picture")
    if absent:
        echo(f"  {len(absent):,} are named by the table but not on the server, such as {absent[0]}")
    return len(absent)


def _no_progress(done: int, total: int) -> None:
    """A single picture needs no progress bar."""


def _picture_names(table: Path, columns: Sequence[str]) -> Iterator[str]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            lacking = [name for name in columns if name not in (reader.fieldnames or ())]
            if lacking:
                raise DownloadError(
                    f"{table}: expected the column {lacking[0]}, found none; fetch the table again."
                )
            for row in reader:
                yield from (row[name] for name in columns if row[name])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DownloadError(f"{table}: cannot be read as a table ({error}).") from None


def _unpack_archive(archive: Path, folder: Path) -> None:
    with progress_bar(f"unpacking {archive.name}") as tick:
        count = unpack(archive, folder / archive.name.partition(".")[0], tick)
    echo(f"  {archive.name}: {count:,} files unpacked")
