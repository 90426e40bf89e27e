"""The cases of a backlog, frozen: read once, checked to be distinct, hashed, and written part by part.

Imports numpy, pyarrow, the photographs, Unicode paths, the bundle's histories and the exception tree. The
frozen cases are what is scored, even if the table changes in the meantime.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lesion_triage.backlog.photographs import Source, file_bytes, in_one_line, read_photographs
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.history import history_from_text, history_to_text, merge_histories
from lesion_triage.bundle.red_flags import GROUP_FIELDS, NUMBER_FIELDS
from lesion_triage.data.unicode_paths import UnicodePathResolver
from lesion_triage.errors import BacklogError

_SCHEMA = pa.schema(
    [
        ("case_id", pa.string()),
        ("images", pa.list_(pa.string())),
        ("sha256", pa.list_(pa.string())),
        ("photographs", pa.int32()),
        ("history", pa.string()),
        ("first_row", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a backlog."""

    position: int
    """In the backlog, from 0."""
    case_id: str
    images: tuple[str, ...]
    """Paths of its photographs; empty if the table contains the files."""
    sha256: tuple[str, ...]
    """Hashes of its photographs; empty if they are files."""
    photographs: int
    history: str
    """In the format of ``bundle.history.history_to_text``."""
    first_row: int
    """In the source, see ``Photograph.row``."""


@dataclass(frozen=True, slots=True)
class FrozenBacklog:
    """Facts about a frozen backlog."""

    sha256: str
    """Hash of every case in order: id, paths or hashes of the files that the table contains, history."""
    cases: int
    photographs: int
    left_out: dict[str, int]
    """What a folder holds beside photographs: counts, by description."""


def freeze(source: Source, path: Path, part_cases: int) -> FrozenBacklog:
    """Read a backlog and write its cases to ``path``, one row group for each part.

    Args:
        source: where it is.
        path: parquet file, overwritten. It is incomplete if the process is killed.
        part_cases: cases per part; the last has fewer.

    Raises:
        BacklogError: the backlog cannot be read, is empty, names a case twice, or has two numbers or two
            groups of one field for a case.
        OSError: ``path`` cannot be written.
    """
    digest, keys = hashlib.sha256(), array("Q")
    left_out: Counter[str] = Counter()
    count = photograph_count = 0
    rows: list[dict[str, object]] = []
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for case in _cases(source, left_out):
            identity = [case.case_id, case.images or case.sha256, case.history]
            digest.update(json.dumps(identity, ensure_ascii=False).encode() + b"\n")
            keys.append(_case_id_hash(case.case_id))
            rows.append({name: getattr(case, name) for name in _SCHEMA.names})
            count, photograph_count = count + 1, photograph_count + case.photographs
            if len(rows) == part_cases:
                writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
                rows.clear()
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
    if not count:
        raise BacklogError(f"{source.path}: expected at least one photograph, found none.")
    _refuse_duplicate_ids(source, keys)
    return FrozenBacklog(digest.hexdigest(), count, photograph_count, dict(left_out))


class Listing:
    """A frozen backlog, read part by part. Not thread-safe."""

    def __init__(self, path: Path, part_cases: int, images: Path, table: Path | None) -> None:
        """Open the output of ``freeze``.

        Args:
            path: the frozen backlog.
            part_cases: as when it was frozen.
            images: what the paths of photographs are relative to.
            table: the parquet file that contains the photographs; None if they are files.

        Raises:
            BacklogError: it cannot be read; also from ``case_ids`` and ``cases``.
        """
        self._path = path
        with self._reading():
            self._parquet = pq.ParquetFile(path)
        self._part_cases = part_cases
        self.images = images
        self._table = table
        self._bytes: tuple[int, Iterator[bytes | None]] = (0, iter(()))

    @property
    def holds_bytes(self) -> bool:
        """Whether the photographs are in a table."""
        return self._table is not None

    def case_ids(self, part: int) -> list[str]:
        """Case ids of one part, in order."""
        with self._reading():
            ids: list[str] = self._parquet.read_row_group(part, ["case_id"]).column(0).to_pylist()
        return ids

    def cases(self, part: int) -> Iterator[Case]:
        """Cases of one part, in order."""
        with self._reading():
            rows = self._parquet.read_row_group(part).to_pylist()
        for position, row in enumerate(rows, start=part * self._part_cases):
            lists = {name: tuple(row[name]) for name in ("images", "sha256")}
            yield Case(position=position, **{**row, **lists})

    def file_bytes(self, case: Case, max_bytes: int) -> list[bytes]:
        """The photographs of a case whose table contains them. Fast if cases are requested in order.

        Args:
            case: of this listing.
            max_bytes: limit per photograph; a longer one is cut one byte beyond it, which shows its excess.

        Raises:
            BacklogError: the table cannot be read, or its photographs are not those that were frozen.
        """
        files = []
        for data, expected in zip(self._files(case), case.sha256, strict=True):
            if sha256_of(data) != expected:  # another case's, where the table was sorted anew
                raise self._changed_error()
            files.append(data[: max_bytes + 1])
        return files

    def skip_photographs(self, case: Case) -> None:
        """Skip the photographs of a case whose table contains them, so that the next case's come next.

        Raises:
            BacklogError: as ``file_bytes``.
        """
        for _ in self._files(case):
            pass

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise BacklogError(
                f"{self._path}: cannot be read ({in_one_line(error)}); the same command writes it again and "
                "continues."
            ) from None

    def _files(self, case: Case) -> Iterator[bytes]:
        assert self._table is not None
        at, files = self._bytes
        if at != case.first_row:
            files = file_bytes(self._table, case.first_row)
        for _ in range(case.photographs):
            if (data := next(files, None)) is None:
                raise self._changed_error()
            yield data
        self._bytes = (case.first_row + case.photographs, files)

    def _changed_error(self) -> BacklogError:
        return BacklogError(
            f"{self._table}: its photographs are not those that this run began with; restore it and run the "
            "same command again, or name a new folder for the new table."
        )


def _cases(source: Source, left_out: Counter[str]) -> Iterator[Case]:
    """Adjacent photographs with one case id, grouped."""
    found = read_photographs(source, left_out)
    for position, (case_id, group) in enumerate(groupby(found, key=lambda photograph: photograph.case_id)):
        has_files = False
        contents: dict[str, None] = {}  # paths or hashes; ordered; a folder may hold many thousands
        spellings: dict[str, list[str]] = {}
        histories: dict[str, int] = {}  # with the first row of each
        first = 0
        for photograph in group:
            first = first or photograph.row
            content = photograph.image if photograph.data is None else sha256_of(photograph.data)
            if content in contents or _is_respelled_path(content, spellings, source.images):
                raise BacklogError(
                    f"{source.path}, {source.row_noun} {photograph.row}: its case already has this "
                    "photograph; name each photograph of a case once."
                )
            contents[content] = None
            histories.setdefault(photograph.history, photograph.row)
            has_files = photograph.data is None
        images, hashes = (tuple(contents), ()) if has_files else ((), tuple(contents))
        history = _merge_histories(histories, source)
        yield Case(position, case_id, images, hashes, len(contents), history, first)


def _is_respelled_path(image: str, paths_by_nfc: dict[str, list[str]], images: Path) -> bool:
    """Whether a path respells one in ``paths_by_nfc`` that is the same file; adds it to ``paths_by_nfc``."""
    if image.isascii():
        return False
    same_nfc = paths_by_nfc.setdefault(normalize("NFC", image), [])
    same_nfc.append(image)
    if len(same_nfc) == 1:
        return False
    path_resolver = UnicodePathResolver(images)
    try:
        return any(
            (images / path_resolver.resolve(image)).samefile(images / path_resolver.resolve(one))
            for one in same_nfc[:-1]
        )
    except OSError:  # one of them does not exist, which its case's row will report
        return False


def _merge_histories(histories: dict[str, int], source: Source) -> str:
    """Merge the histories of a case, each given with its row.

    Of two numbers or groups either may be the one that raises a red flag, so neither is preferred.
    """
    if len(histories) == 1:
        return next(iter(histories))
    parsed = [history_from_text(text) for text in histories]
    merged = merge_histories(parsed)
    for history, row in zip(parsed, histories.values(), strict=True):
        for name in (*NUMBER_FIELDS, *GROUP_FIELDS):
            if getattr(history, name) not in (None, getattr(merged, name)):
                raise BacklogError(
                    f"{source.path}, {source.row_noun} {row}: an earlier {source.row_noun} of its case has "
                    f"another {name}, and the urgency may depend on which is right; correct it, or make them "
                    "two cases."
                )
    return history_to_text(merged)


def _case_id_hash(case_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(case_id.encode(), digest_size=8).digest())


def _refuse_duplicate_ids(source: Source, keys: array[int]) -> None:
    """Require unique case ids. Holds eight bytes per case; where these agree, the ids are compared."""
    ordered = np.sort(np.frombuffer(keys, np.uint64))
    repeated_hashes = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not repeated_hashes:
        return
    first: dict[str, int] = {}
    for case in _cases(source, Counter()):
        if _case_id_hash(case.case_id) not in repeated_hashes:
            continue
        if case.case_id in first:
            # By position, not by name: a case id may identify a person.
            raise BacklogError(
                f"{source.path}, {source.row_noun} {case.first_row}: the case_id of {source.row_noun} "
                f"{first[case.case_id]} appears again; the rows of one case must be adjacent, and no other "
                "case may have its case_id. Sort the table by case_id, or renumber the cases."
            )
        first[case.case_id] = case.first_row
