"""Scoring part by part, in threads of this process. Imports this room and the bundle.

The rows of a part do not depend on the engine: each case is scored alone, one picture a call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from lesion_triage.backlog.listing import Listing
from lesion_triage.backlog.rows import NOT_READABLE, Row, RowMaker, Work
from lesion_triage.backlog.shards import Shards
from lesion_triage.bundle.in_step import SIDE_BY_SIDE
from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE, Scorer
from lesion_triage.bundle.store import Bundle
from lesion_triage.errors import BacklogError, BundleError

Progress = Callable[[int], None]
"""Called with the number of cases of each part that is written."""

_HANDFUL = 4 * SIDE_BY_SIDE
"""Cases that a thread scores side by side: more than a server takes, since nobody waits for the first."""
_AHEAD = 6
"""Handfuls waiting for each thread, so that none idles while a part is written to a slow disk."""
_HANDFUL_WITH_BYTES, _AHEAD_WITH_BYTES = SIDE_BY_SIDE, 2
"""The same where the photographs themselves wait, which may have 30 MB each."""

_TELLING = 100
"""Cases in a row that are not unreadable each for itself; so is a full part that has fewer."""


def row_maker(shards: Shards, bundle: Bundle) -> RowMaker:
    """What scores the cases of a folder.

    Raises:
        BundleError: the bundle is not the one that the folder was begun with, or fails its self-test here.
        ConfigError: words are asked for in a language that has none.
    """
    state = shards.state
    if bundle.sha256 != state.bundle_sha256:
        raise BundleError(f"{bundle.folder}: is not the bundle that {shards.folder} was begun with.")
    languages = None
    if {"note", "answer"} & set(state.options.extras):
        codes = [flag.code for flag in bundle.policy.red_flags.flags]
        languages = Languages.for_flags(codes, state.options.language)
    scorer = Scorer(bundle, languages)
    scorer.self_test()
    return RowMaker(scorer, Path(state.images), state.options.extras)


def score_parts(
    shards: Shards,
    maker: RowMaker,
    parts: Iterable[int],
    threads: int,
    progress: Progress,
    *,
    accept_unreadable: bool = False,
) -> None:
    """Score parts with threads and write them, in order.

    Memory holds one part's rows and a few cases for each thread, however long the backlog.

    Args:
        shards: where they go.
        maker: from ``row_maker``.
        parts: numbers of parts.
        threads: callers of the one session.
        progress: of cases.
        accept_unreadable: see ``write_part``.

    Raises:
        BacklogError: see ``write_part``; or cases or photographs cannot be read for want of a disk or of
            what this machine gives one process.
    """
    listing = shards.listing()
    most = threads * (_AHEAD_WITH_BYTES if listing.holds_bytes else _AHEAD)
    waiting: deque[tuple[int, Future[list[Row]]]] = deque()
    rows: list[Row] = []

    def settle() -> None:
        """Take the oldest handful, and write its part if that was the last of it."""
        part, future = waiting.popleft()
        rows.extend(future.result())
        if len(rows) == shards.state.part_rows(part):
            write_part(shards, part, rows, accept_unreadable=accept_unreadable)
            progress(len(rows))
            rows.clear()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="scoring")
    try:
        for part in parts:
            for works in _handfuls(listing, maker, part):
                waiting.append((part, pool.submit(maker.rows, works)))
                if len(waiting) > most:
                    settle()
        while waiting:
            settle()
    finally:
        pool.shutdown(cancel_futures=True)


def score_part(
    shards: Shards, listing: Listing, maker: RowMaker, part: int, *, accept_unreadable: bool = False
) -> int:
    """Score one part in this thread and write it.

    Returns:
        How many cases it has.

    Raises:
        BacklogError: as ``score_parts``.
    """
    rows = [row for works in _handfuls(listing, maker, part) for row in maker.rows(works)]
    write_part(shards, part, rows, accept_unreadable=accept_unreadable)
    return len(rows)


def write_part(shards: Shards, part: int, rows: Sequence[Row], *, accept_unreadable: bool = False) -> None:
    """Write a part, unless not one of its cases could be read.

    A disk that went away in the night would else turn the rest of the backlog into errors, quickly. A few
    cases that are left for the last part say nothing of a disk, unless there are no others.

    Raises:
        BacklogError: no case of the part could be read, and ``accept_unreadable`` is not set; or it cannot
            be written.
    """
    telling = len(rows) >= min(_TELLING, shards.state.options.part_cases, shards.state.cases)
    unreadable = all(row.get("error_code") == NOT_READABLE for row in rows)
    if unreadable and telling and not accept_unreadable:
        raise BacklogError(
            f"not one of {len(rows)} cases in a row, from number {rows[0]['position'] + 1} on, has "
            f"photographs that can be read below {shards.state.images}. Is the disk there? The same command "
            "goes on from here; with --accept-unreadable such cases are written down as not scored."
        )
    shards.write(part, rows)


def _works(listing: Listing, maker: RowMaker, part: int) -> Iterator[Work]:
    for case in listing.cases(part):
        if not listing.holds_bytes:
            yield case, None
        elif case.photographs > MAX_IMAGES_PER_CASE:  # it is refused, and may have more than the memory holds
            listing.pass_over(case)
            yield case, ()
        else:
            yield case, listing.file_bytes(case, maker.most_bytes)


def _handfuls(listing: Listing, maker: RowMaker, part: int) -> Iterator[list[Work]]:
    works = _works(listing, maker, part)
    most = _HANDFUL_WITH_BYTES if listing.holds_bytes else _HANDFUL
    while some := list(islice(works, most)):
        yield some
