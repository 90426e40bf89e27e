"""The folder of a scored backlog: what it belongs to, which parts are done, and their content.

Imports pyarrow, the state, the listing, the rows, the bundle's writer of files, the locks and the errors.

    run.json          what is scored with what; written once, before the first part
    listing.parquet   the frozen cases, one row group for each part
    cases/            part-00000000.parquet and so on: the results
    summary.json      counts; written last, so its existence means that every case has its row
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lesion_triage import locks
from lesion_triage.backlog.listing import FrozenBacklog, Listing, freeze
from lesion_triage.backlog.photographs import Source, has_bytes, in_one_line
from lesion_triage.backlog.rows import NOT_READABLE, Row, schema_with
from lesion_triage.backlog.state import STATE, Options, State, Summary, read_state, require_same, software
from lesion_triage.bundle.files import flush, write_atomically
from lesion_triage.bundle.store import Bundle
from lesion_triage.errors import BacklogError

LISTING = "listing.parquet"
CASES = "cases"
SUMMARY = "summary.json"
_LOCK = ".lock"
_NEW_LISTING = f".{LISTING}.new"
_RUN_KEY = b"lesion_triage.run"
_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Shards:
    """A folder of results, opened for one run."""

    def __init__(self, folder: Path) -> None:
        """Open a folder made by ``prepare``.

        Raises:
            BacklogError: it is not one.
        """
        self.folder = folder
        self.state = read_state(folder)
        self._run = self.state.sha256()
        self._schema = schema_with(self.state.options.extras)

    def listing(self) -> Listing:
        """The frozen cases."""
        state = self.state
        table = None if state.table is None else Path(state.table)
        return Listing(self.folder / LISTING, state.options.part_cases, Path(state.images), table)

    def path(self, part: int) -> Path:
        """File of a part."""
        return self.folder / CASES / f"part-{part:08d}.parquet"

    def missing_parts(self) -> list[int]:
        """Parts that are absent, incomplete or not of this run; ascending."""
        return [part for part in range(self.state.parts) if not self._is_complete(part)]

    def write(self, part: int, rows: Sequence[Row]) -> None:
        """Write a part atomically.

        Raises:
            BacklogError: it cannot be written.
        """
        assert len(rows) == self.state.part_rows(part)
        schema = self._schema.with_metadata({_RUN_KEY: self._run})
        buffer = pa.BufferOutputStream()
        table = pa.Table.from_pylist(list(rows), schema)
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        with _writing(self.folder):
            write_atomically(self.path(part), buffer.getvalue())

    def unreadable_parts(self) -> list[int]:
        """Parts with a case for which a photograph could not be read."""
        return [
            part
            for part in range(self.state.parts)
            if self._is_complete(part) and NOT_READABLE in self._read(part, ["error_code"])[0].to_pylist()
        ]

    def delete_part(self, part: int) -> None:
        """Remove a part, so that it is scored again.

        Raises:
            BacklogError: it cannot be removed.
        """
        with _writing(self.folder):
            (self.folder / SUMMARY).unlink(missing_ok=True)
            self.path(part).unlink()

    def finish(self) -> Summary:
        """Read every part back, check that each case has exactly one row, and write the summary.

        Raises:
            BacklogError: a part is damaged, a file is not a part, or the summary cannot be written.
        """
        state, listing = self.state, self.listing()
        found = {name for name in _file_names(self.folder / CASES) if not name.startswith(".")}
        expected = {self.path(part).name for part in range(state.parts)}
        if unexpected := sorted(found ^ expected):
            raise BacklogError(
                f"{self.folder / CASES}: {unexpected[0]} is missing or does not belong to this run; remove "
                "what does not belong here and run the same command again."
            )
        dispositions, bands, errors = Counter[str](), Counter[str](), Counter[str]()
        for part in range(state.parts):
            table = self._read(part)
            first = part * state.options.part_cases
            positions = np.arange(first, first + state.part_rows(part))
            same = np.array_equal(table["position"].to_numpy(), positions)
            if not same or table["case_id"].to_pylist() != listing.case_ids(part):
                raise _damaged_error(self.path(part), "its rows are not the cases of the listing")
            dispositions.update(table["disposition"].to_pylist())
            bands.update(str(band) for band in table["priority_band"].to_pylist() if band is not None)
            errors.update(code for code in table["error_code"].to_pylist() if code is not None)
        summary = Summary(
            run_sha256=self._run,
            cases=state.cases,
            photographs=state.photographs,
            dispositions=dict(sorted(dispositions.items())),
            priority_bands=dict(sorted(bands.items())),
            errors=dict(sorted(errors.items())),
        )
        with _writing(self.folder):
            write_atomically(self.folder / SUMMARY, summary.to_json().encode())
        return summary

    def _is_complete(self, part: int) -> bool:
        try:
            metadata = pq.read_metadata(self.path(part))
        except (OSError, pa.ArrowException):
            return False
        run_sha256 = (metadata.metadata or {}).get(_RUN_KEY, b"").decode()
        return bool(run_sha256 == self._run and metadata.num_rows == self.state.part_rows(part))

    def _read(self, part: int, names: list[str] | None = None) -> pa.Table:
        path = self.path(part)
        try:
            file = pq.ParquetFile(path, page_checksum_verification=True)
            # Checksums cover the pages, but not the names and types of the columns.
            if not file.schema_arrow.remove_metadata().equals(self._schema):
                raise _damaged_error(path, "it has other columns")
            return file.read(names)
        except (OSError, pa.ArrowException) as error:
            raise _damaged_error(path, in_one_line(error)) from None


def prepare(folder: Path, source: Source, bundle: Bundle, options: Options) -> tuple[Shards, FrozenBacklog]:
    """Freeze a backlog in ``folder``, which may already hold the same one.

    The backlog is always read again from its source: a change since then is not scored silently, and a
    listing damaged on disk is not scored at all.

    Raises:
        BacklogError: the backlog cannot be read, or ``folder`` holds something else or cannot be written.
    """
    with _writing(folder):
        (folder / CASES).mkdir(parents=True, exist_ok=True)
        _remove_incomplete(folder)
    try:
        frozen = _replace_listing(folder, source, bundle, options)
    finally:
        (folder / _NEW_LISTING).unlink(missing_ok=True)  # if it was refused: it holds case ids
    return Shards(folder), frozen


def _replace_listing(folder: Path, source: Source, bundle: Bundle, options: Options) -> FrozenBacklog:
    new = folder / _NEW_LISTING
    with _writing(folder):  # errors in reading the source are reported by the source
        frozen = freeze(source, new, options.part_cases)
    resuming = (folder / STATE).exists()
    wanted = State(
        bundle_sha256=bundle.sha256,
        certificate_id=bundle.certificate.certificate_id(),
        listing_sha256=frozen.sha256,
        cases=frozen.cases,
        photographs=frozen.photographs,
        images=str(source.images),
        table=str(source.path.resolve()) if has_bytes(source) else None,
        options=options,
        software=software(),
    )
    if resuming:
        require_same(folder, read_state(folder), wanted)
    with _writing(folder):
        flush(new)
        new.replace(folder / LISTING)
        if not resuming:
            write_atomically(folder / STATE, wanted.to_json().encode())
        flush(folder)
    return frozen


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Lock the folder, so that no second run writes into it. The lock ends with the process.

    Raises:
        BacklogError: another process holds it, it is not a folder of results, or it cannot be created.
    """
    if folder.exists() and not folder.is_dir():
        raise BacklogError(f"{folder}: expected a folder for the results, found a file; name another.")
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    names = _file_names(folder)
    if names and _LOCK not in names:
        raise BacklogError(
            f"{folder}: holds other files and no results of score-batch; name an empty or a new folder."
        )
    with _writing(folder):
        lock = locks.try_lock(folder / _LOCK)
    if lock is None:
        raise BacklogError(f"{folder}: another process is scoring into it; wait until it has finished.")
    with lock:
        yield


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn an operating-system error into one sentence. Only for writing: reading has its own."""
    try:
        yield
    except OSError as error:
        full = error.errno in _DISK_FULL_ERRNOS
        why = "the disk is full" if full else f"cannot be written ({error.strerror or error})"
        raise BacklogError(
            f"{folder}: {why}; what is written is kept, and the same command continues from there once "
            f"{'there is room' if full else 'it can be written'}."
        ) from None


def _file_names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError as error:
        raise BacklogError(f"{folder}: cannot be listed ({error.strerror}).") from None


def _remove_incomplete(folder: Path) -> None:
    """Remove files left incomplete by a killed process: the folder is locked, and no engine runs yet."""
    for path in (*folder.glob(".*.tmp"), *(folder / CASES).glob(".part-*.tmp"), folder / _NEW_LISTING):
        path.unlink(missing_ok=True)


def _damaged_error(path: Path, why: str) -> BacklogError:
    return BacklogError(f"{path}: is damaged ({why}); remove it and run the same command again.")
