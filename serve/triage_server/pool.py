"""Where cases are scored: one thread per usable processor, a bounded queue, bounded memory.

Imports the bundle's steps and the problems.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from lesion_triage.bundle.in_step import SIDE_BY_SIDE, Steps, in_step
from lesion_triage.bundle.processors import affinity
from triage_server.problems import RequestError

Result = TypeVar("Result")

RETRY_AFTER_S = 1
_NICER = 5
"""About a third of the event loop's share of a processor that both want."""
_Job = tuple[Steps[Any], "asyncio.Future[Any]"]


class Place:
    """One case's place in the house, and the bytes it holds."""

    def __init__(self, pool: ScoringPool) -> None:
        self._pool = pool
        self.held_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Count bytes that are about to be kept in memory.

        Raises:
            RequestError: all requests together would hold more than ``max_pending_bytes``.
        """
        if self._pool.pending_bytes + size_bytes > self._pool.max_pending_bytes:
            raise _busy()
        self.held_bytes += size_bytes
        self._pool.pending_bytes += size_bytes

    def give_back(self) -> None:
        """They are in memory no more."""
        self._pool.pending_bytes -= self.held_bytes
        self.held_bytes = 0


class ScoringPool:
    """Threads that score, and the count of what waits for them. Its counters belong to the event loop."""

    def __init__(self, threads: int, queue: int, max_pending_bytes: int) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # Daemons: a server that could not start must not wait for them.
        self._hands = [
            threading.Thread(target=self._work, name=f"scoring-{number}", daemon=True)
            for number in range(threads)
        ]
        # Threads of their own: one of the above could be given another case a moment before its piece.
        self._helpers = ThreadPoolExecutor(threads - 1, "helping", _give_way) if threads > 1 else None
        self.threads = threads
        self.capacity = threads + queue
        self.max_pending_bytes = max_pending_bytes
        self.pending_bytes = 0
        self.cases = 0

    def refuse_if_full(self) -> None:
        """Tell whether one more case would be taken.

        Raises:
            RequestError: as many cases as the threads and the queue may hold are already here.
        """
        if self.cases >= self.capacity:
            raise _busy()

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for one case, from before its body is read until it is answered.

        Raises:
            RequestError: as many cases as the threads and the queue may hold are already here.
        """
        self.refuse_if_full()
        self.cases += 1
        try:
            with self.counted() as place:
                yield place
        finally:
            self.cases -= 1

    @contextmanager
    def counted(self) -> Iterator[Place]:
        """Count the bytes of one case, also while it has no place: it waits for no thread of this pool."""
        place = Place(self)
        try:
            yield place
        finally:
            place.give_back()

    async def run(self, work: Steps[Result]) -> Result:
        """Do ``work`` on one of the threads: side by side with other work, if more waits than they are."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        for hand in self._hands:
            if hand.ident is None:
                hand.start()
        self._jobs.put((work, future))
        return await future

    def helpers(self) -> Executor | None:
        """Threads that may do pieces of a case that is alone in the house; None while others are here too.

        They would take time from the others' scoring, and give no more than they take.
        """
        return self._helpers if self.cases == 1 else None

    def close(self) -> None:
        """Finish what is here and let the threads go."""
        begun = [hand for hand in self._hands if hand.ident is not None]
        for _ in begun:
            self._jobs.put(None)
        for hand in begun:
            hand.join()
        if self._helpers is not None:
            self._helpers.shutdown()

    def _work(self) -> None:
        _give_way()
        while self._round():
            pass

    def _round(self) -> bool:
        """Wait for work and do it; False: there will be none. A function, so that nothing of it is kept."""
        group = self._group()
        wanted = [(steps, future) for steps, future in filter(None, group) if not future.cancelled()]
        for ended in in_step([steps for steps, _ in wanted]):
            told = [(wanted[place][1], outcome) for place, outcome in ended]
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                told[0][0].get_loop().call_soon_threadsafe(_tell, told)
        return None not in group

    def _group(self) -> list[_Job | None]:
        """What a thread does side by side; None, which comes last, ends its work.

        No more than its share of what waits: an idle thread costs more than a cold cache.
        """
        group = [self._jobs.get()]
        most = min(SIDE_BY_SIDE, 1 + self._jobs.qsize() // self.threads)
        with suppress(Empty):
            while group[-1] is not None and len(group) < most:
                group.append(self._jobs.get_nowait())
        return group


def _tell(ended: Sequence[tuple[asyncio.Future[Any], object]]) -> None:
    for future, outcome in ended:
        if future.done():  # whoever asked has gone
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _give_way() -> None:
    """Let the event loop go first, where a thread has a priority of its own.

    Else a server that is asked for more than it can do refuses as slowly as it scores. Where it is forbidden,
    the thread scores as it is.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICER)


def usable_processors(
    membership: Path = Path("/proc/self/cgroup"), hierarchy: Path = Path("/sys/fs/cgroup")
) -> int:
    """Processors that the scheduler grants: the affinity mask, cut by every cgroup quota above us.

    A quota of one and a half processors counts as two: a thread too many waits, a thread too few idles.

    Args:
        membership: the kernel's list of this process's control groups.
        hierarchy: where the control groups are mounted, version 2 or version 1.
    """
    return max(1, min(affinity(), math.ceil(_quota(membership, hierarchy))))


def _quota(membership: Path, hierarchy: Path) -> float:
    quota = float(os.cpu_count() or 1)
    for line in _text(membership).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            mount = hierarchy
        elif "cpu" in controllers.split(","):
            mount = hierarchy / "cpu"
        else:
            continue
        group = mount / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                quota = min(quota, _quota_of(folder))
    return quota


def _quota_of(folder: Path) -> float:
    words = _text(folder / "cpu.max").split() or [
        _text(folder / "cpu.cfs_quota_us").strip(),
        _text(folder / "cpu.cfs_period_us").strip(),
    ]
    try:
        quota, period = float(words[0]), float(words[1])
    except (IndexError, ValueError):
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _busy() -> RequestError:
    return RequestError("busy", headers={"Retry-After": str(RETRY_AFTER_S)})
