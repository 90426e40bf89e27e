"""Scoring part by part, in threads of this process. Imports this package and the bundle.

The rows of a part do not depend on the engine: each case is scored separately, one picture per call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from lesion_triage.backlog.listing import Listing
from lesion_triage.backlog.rows import NOT_READABLE, Row, RowBuilder, WorkItem
from lesion_triage.backlog.shards import Shards
from lesion_triage.bundle.interleaving import MAX_INTERLEAVED
from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE, Scorer
from lesion_triage.bundle.store import Bundle
from lesion_triage.errors import BacklogError, BundleError

Progress = Callable[[int], None]
"""Called after each part is written, with its number of cases."""

_BATCH_CASES = 4 * MAX_INTERLEAVED
"""Cases that a thread interleaves: more than in a server, since nobody waits for the first."""
_QUEUED_BATCHES = 6
"""Batches queued for each thread, so that none idles while a part is written to a slow disk."""
_BATCH_CASES_WITH_BYTES, _QUEUED_BATCHES_WITH_BYTES = MAX_INTERLEAVED, 2
"""The same if the photographs themselves are queued, of up to 30 MB each."""

_CONCLUSIVE_CASES = 100
"""This many unreadable cases in a row suggest a missing disk; so does a full part or backlog with fewer."""


def make_row_builder(shards: Shards, bundle: Bundle) -> RowBuilder:
    """The scorer for the cases of a folder.

    Raises:
        BundleError: the bundle is not the one that the folder was started with, or fails its self-test here.
        ConfigError: texts are requested in a language that has none.
    """
    state = shards.state
    if bundle.sha256 != state.bundle_sha256:
        raise BundleError(f"{bundle.folder}: is not the bundle that {shards.folder} was started with.")
    languages = None
    if {"note", "answer"} & set(state.options.extras):
        codes = [flag.code for flag in bundle.policy.red_flags.flags]
        languages = Languages.for_flags(codes, state.options.language)
    scorer = Scorer(bundle, languages)
    scorer.self_test()
    return RowBuilder(scorer, Path(state.images), state.options.extras)


def score_parts(
    shards: Shards,
    row_builder: RowBuilder,
    parts: Iterable[int],
    threads: int,
    progress: Progress,
    *,
    accept_unreadable: bool = False,
) -> None:
    """Score parts with threads and write them, in order.

    Memory use is one part's rows and a few cases per thread, whatever the size of the backlog.

    Args:
        shards: where the parts are written.
        row_builder: from ``make_row_builder``.
        parts: numbers of the parts.
        threads: number of threads that share the one onnxruntime session.
        progress: called with the number of cases.
        accept_unreadable: see ``write_part``.

    Raises:
        BacklogError: see ``write_part``; or cases or photographs cannot be read because a disk is missing or
            this process has reached a limit of the machine.
    """
    listing = shards.listing()
    max_pending = threads * (_QUEUED_BATCHES_WITH_BYTES if listing.holds_bytes else _QUEUED_BATCHES)
    pending: deque[tuple[int, Future[list[Row]]]] = deque()
    rows: list[Row] = []

    def collect_oldest() -> None:
        """Collect the oldest batch, and write its part if it was the part's last."""
        part, future = pending.popleft()
        rows.extend(future.result())
        if len(rows) == shards.state.part_rows(part):
            write_part(shards, part, rows, accept_unreadable=accept_unreadable)
            progress(len(rows))
            rows.clear()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="scoring")
    try:
        for part in parts:
            for batch in _batches(listing, row_builder, part):
                pending.append((part, pool.submit(row_builder.rows, batch)))
                if len(pending) > max_pending:
                    collect_oldest()
        while pending:
            collect_oldest()
    finally:
        pool.shutdown(cancel_futures=True)


def score_part(
    shards: Shards, listing: Listing, row_builder: RowBuilder, part: int, *, accept_unreadable: bool = False
) -> int:
    """Score one part in this thread and write it.

    Returns:
        How many cases it has.

    Raises:
        BacklogError: as ``score_parts``.
    """
    rows = [row for batch in _batches(listing, row_builder, part) for row in row_builder.rows(batch)]
    write_part(shards, part, rows, accept_unreadable=accept_unreadable)
    return len(rows)


def write_part(shards: Shards, part: int, rows: Sequence[Row], *, accept_unreadable: bool = False) -> None:
    """Write a part, unless none of its cases could be read.

    Otherwise a disk that disappears overnight would quickly turn the rest of the backlog into errors. A few
    cases that are left for the last part prove nothing about the disk, unless there are no others.

    Raises:
        BacklogError: no case of the part could be read, and ``accept_unreadable`` is not set; or it cannot
            be written.
    """
    conclusive = len(rows) >= min(_CONCLUSIVE_CASES, shards.state.options.part_cases, shards.state.cases)
    unreadable = all(row.get("error_code") == NOT_READABLE for row in rows)
    if unreadable and conclusive and not accept_unreadable:
        raise BacklogError(
            f"none of {len(rows)} consecutive cases, from number {rows[0]['position'] + 1} on, has "
            f"photographs that can be read below {shards.state.images}. Is the disk mounted? The same "
            "command continues from here; with --accept-unreadable such cases are recorded as not scored."
        )
    shards.write(part, rows)


def _work_items(listing: Listing, row_builder: RowBuilder, part: int) -> Iterator[WorkItem]:
    for case in listing.cases(part):
        if not listing.holds_bytes:
            yield case, None
        elif case.photographs > MAX_IMAGES_PER_CASE:  # refused anyway, and may not fit in memory
            listing.skip_photographs(case)
            yield case, ()
        else:
            yield case, listing.file_bytes(case, row_builder.max_bytes)


def _batches(listing: Listing, row_builder: RowBuilder, part: int) -> Iterator[list[WorkItem]]:
    items = _work_items(listing, row_builder, part)
    batch_size = _BATCH_CASES_WITH_BYTES if listing.holds_bytes else _BATCH_CASES
    while batch := list(islice(items, batch_size)):
        yield batch
