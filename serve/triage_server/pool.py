"""Scores cases: one thread per usable processor, a bounded queue, bounded memory.

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

from lesion_triage.bundle.interleaving import MAX_INTERLEAVED, SteppedTask, interleave
from lesion_triage.bundle.parallel import available_cpus
from triage_server.problems import RequestError

Result = TypeVar("Result")

RETRY_AFTER_S = 1
_NICE_INCREMENT = 5
"""Gives a thread about a third of the event loop's share of a processor that both want."""
_Job = tuple[SteppedTask[Any], "asyncio.Future[Any]"]


class CaseSlot:
    """One case's slot in the server, and the bytes it holds."""

    def __init__(self, pool: ScoringPool) -> None:
        self._pool = pool
        self.held_bytes = 0

    def reserve_bytes(self, size_bytes: int) -> None:
        """Count bytes that are about to be kept in memory.

        Raises:
            RequestError: all requests together would exceed ``max_pending_bytes``.
        """
        if self._pool.pending_bytes + size_bytes > self._pool.max_pending_bytes:
            raise _busy_error()
        self.held_bytes += size_bytes
        self._pool.pending_bytes += size_bytes

    def release_bytes(self) -> None:
        """Stop counting the bytes: they are no longer in memory."""
        self._pool.pending_bytes -= self.held_bytes
        self.held_bytes = 0


class ScoringPool:
    """Threads that score, and counters of what is waiting. The counters belong to the event loop."""

    def __init__(self, threads: int, queue: int, max_pending_bytes: int) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # Daemons, so that a server that fails to start does not wait for them.
        self._workers = [
            threading.Thread(target=self._work, name=f"scoring-{number}", daemon=True)
            for number in range(threads)
        ]
        # Separate threads: a scoring thread could receive another case just before the helper's piece.
        self._helper_executor = (
            ThreadPoolExecutor(threads - 1, "helping", _lower_priority) if threads > 1 else None
        )
        self.threads = threads
        self.capacity = threads + queue
        self.max_pending_bytes = max_pending_bytes
        self.pending_bytes = 0
        self.cases = 0

    def refuse_if_full(self) -> None:
        """Check that one more case would be accepted.

        Raises:
            RequestError: the threads and the queue are full.
        """
        if self.cases >= self.capacity:
            raise _busy_error()

    @contextmanager
    def reserve_slot(self) -> Iterator[CaseSlot]:
        """A slot for one case, from before its body is read until it is answered.

        Raises:
            RequestError: the threads and the queue are full.
        """
        self.refuse_if_full()
        self.cases += 1
        try:
            with self.count_bytes() as slot:
                yield slot
        finally:
            self.cases -= 1

    @contextmanager
    def count_bytes(self) -> Iterator[CaseSlot]:
        """Count the bytes of one case, even while it has no slot and waits for no thread of this pool."""
        slot = CaseSlot(self)
        try:
            yield slot
        finally:
            slot.release_bytes()

    async def run(self, work: SteppedTask[Result]) -> Result:
        """Run ``work`` on one of the threads, interleaved with other work if much is waiting."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        for worker in self._workers:
            if worker.ident is None:
                worker.start()
        self._jobs.put((work, future))
        return await future

    def idle_executor(self) -> Executor | None:
        """Threads that may help with the only case in the server; None while there are others.

        With several cases, helpers would take as much time from the others as they save.
        """
        return self._helper_executor if self.cases == 1 else None

    def close(self) -> None:
        """Finish the present work and stop the threads."""
        begun = [worker for worker in self._workers if worker.ident is not None]
        for _ in begun:
            self._jobs.put(None)
        for worker in begun:
            worker.join()
        if self._helper_executor is not None:
            self._helper_executor.shutdown()

    def _work(self) -> None:
        _lower_priority()
        while self._run_group():
            pass

    def _run_group(self) -> bool:
        """Wait for work and do it; False: none will come. A function: no local keeps its data alive."""
        group = self._next_group()
        wanted = [(steps, future) for steps, future in filter(None, group) if not future.cancelled()]
        for ended in interleave([steps for steps, _ in wanted]):
            outcomes = [(wanted[index][1], outcome) for index, outcome in ended]
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                outcomes[0][0].get_loop().call_soon_threadsafe(_resolve_futures, outcomes)
        return None not in group

    def _next_group(self) -> list[_Job | None]:
        """Work to interleave on this thread; a None at the end stops it.

        No more than this thread's share of what is waiting: an idle thread costs more than a cold cache.
        """
        group = [self._jobs.get()]
        most = min(MAX_INTERLEAVED, 1 + self._jobs.qsize() // self.threads)
        with suppress(Empty):
            while group[-1] is not None and len(group) < most:
                group.append(self._jobs.get_nowait())
        return group


def _resolve_futures(ended: Sequence[tuple[asyncio.Future[Any], object]]) -> None:
    for future, outcome in ended:
        if future.done():  # the request has gone
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _lower_priority() -> None:
    """Lower this thread's priority below the event loop's, on Linux, where threads have priorities.

    Otherwise an overloaded server refuses as slowly as it scores. If this is not permitted, the priority
    stays.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICE_INCREMENT)


def usable_processors(
    membership: Path = Path("/proc/self/cgroup"), hierarchy: Path = Path("/sys/fs/cgroup")
) -> int:
    """Processors that the scheduler grants: the affinity mask, limited by every cgroup quota above us.

    A quota of 1.5 processors counts as 2: one thread too many waits, one too few leaves a processor idle.

    Args:
        membership: the kernel's list of this process's control groups.
        hierarchy: where the control groups are mounted, version 2 or version 1.
    """
    return max(1, min(available_cpus(), math.ceil(_quota(membership, hierarchy))))


def _quota(membership: Path, hierarchy: Path) -> float:
    quota = float(os.cpu_count() or 1)
    for line in _read_text(membership).splitlines():
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
    words = _read_text(folder / "cpu.max").split() or [
        _read_text(folder / "cpu.cfs_quota_us").strip(),
        _read_text(folder / "cpu.cfs_period_us").strip(),
    ]
    try:
        quota, period = float(words[0]), float(words[1])
    except (IndexError, ValueError):
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _busy_error() -> RequestError:
    return RequestError("busy", headers={"Retry-After": str(RETRY_AFTER_S)})
