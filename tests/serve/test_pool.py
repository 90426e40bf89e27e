from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import weakref
from concurrent.futures import Executor
from pathlib import Path

import pytest

from lesion_triage.bundle.interleaving import SteppedTask, single_step
from triage_server.pool import ScoringPool, usable_processors
from triage_server.problems import RequestError

MASK = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def groups(folder: Path, membership: str, **files: str) -> tuple[Path, Path]:
    listing = folder / "cgroup"
    listing.write_text(membership)
    for name, text in files.items():
        path = folder / "fs" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return listing, folder / "fs"


def test_without_control_groups_the_affinity_mask_counts(tmp_path: Path):
    assert usable_processors(tmp_path / "none", tmp_path) == MASK


def test_unlimited_quota_changes_nothing(tmp_path: Path):
    assert usable_processors(*groups(tmp_path, "0::/a", a__cpu_max="max 100000")) == MASK


def test_quota_below_one_processor_still_gives_one_thread(tmp_path: Path):
    assert usable_processors(*groups(tmp_path, "0::/a/b", a__b__cpu_max="20000 100000")) == 1


def test_quota_of_a_parent_group_holds(tmp_path: Path):
    files = {"a__cpu_max": "100000 100000", "a__b__cpu_max": "max 100000"}
    assert usable_processors(*groups(tmp_path, "0::/a/b", **files)) == 1


def test_group_unseen_inside_a_container_falls_back_to_its_root(tmp_path: Path):
    assert usable_processors(*groups(tmp_path, "0::/outer/inner", cpu_max="100000 100000")) == 1


def test_version_1_quota_is_read(tmp_path: Path):
    files = {"cpu__a__cpu_cfs_quota_us": "50000\n", "cpu__a__cpu_cfs_period_us": "100000\n"}
    assert usable_processors(*groups(tmp_path, "3:cpuset:/a\n2:cpu,cpuacct:/a", **files)) == 1


def test_version_1_without_quota_changes_nothing(tmp_path: Path):
    files = {"cpu__a__cpu_cfs_quota_us": "-1\n", "cpu__a__cpu_cfs_period_us": "100000\n"}
    assert usable_processors(*groups(tmp_path, "2:cpu:/a", **files)) == MASK


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads share one priority")
def test_scoring_gives_way_to_the_thread_that_takes_and_refuses():
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    pool, ours = ScoringPool(threads=1, queue=1, max_pending_bytes=10), priority()
    assert asyncio.run(pool.run(single_step(priority))) > ours  # a greater number waits for a smaller
    assert priority() == ours
    pool.close()


class Desk:
    """A pool, each thread of which is held by a first piece of work until ``free`` is set."""

    def __init__(self, threads: int = 1) -> None:
        self.pool = ScoringPool(threads=threads, queue=16, max_pending_bytes=10)
        self.done: list[str] = []
        self.free = threading.Event()

    def step(self, name: str) -> SteppedTask[str]:
        self.done.append(f"before {name}")
        yield
        self.done.append(f"after {name}")
        return name

    async def hold(self) -> asyncio.Task[bool]:
        begun = threading.Event()

        def wait() -> bool:
            begun.set()
            return self.free.wait(10)

        task = asyncio.create_task(self.pool.run(single_step(wait)))
        await asyncio.to_thread(begun.wait, 10)
        return task


def test_only_a_case_that_is_alone_in_the_house_is_helped():
    before, pool = set(threading.enumerate()), ScoringPool(threads=3, queue=1, max_pending_bytes=10)
    with pool.reserve_slot():
        helpers = pool.idle_executor()
        assert isinstance(helpers, Executor)
        met = threading.Barrier(3)  # one of them here: a helper for each other thread, all at once
        waiting = [helpers.submit(met.wait, 10) for _ in range(2)]
        ours = met.wait(10)
        assert sorted([ours, *(each.result() for each in waiting)]) == [0, 1, 2]
        with pool.reserve_slot():
            assert pool.idle_executor() is None
        assert pool.idle_executor() is helpers
    pool.close()
    begun = set(threading.enumerate()) - before
    assert not [thread for thread in begun if thread.name.startswith("helping")]


def test_a_server_with_one_thread_has_no_helpers():
    pool = ScoringPool(threads=1, queue=1, max_pending_bytes=10)
    with pool.reserve_slot():
        assert pool.idle_executor() is None
    pool.close()


def test_cases_that_wait_are_taken_side_by_side_and_no_more_than_four():
    async def go(desk: Desk) -> list[str]:
        held = await desk.hold()
        waiting = [asyncio.create_task(desk.pool.run(desk.step(name))) for name in "abcde"]
        await asyncio.sleep(0)  # they are in the queue now
        desk.free.set()
        await held
        return await asyncio.gather(*waiting)

    desk = Desk()
    assert asyncio.run(go(desk)) == ["a", "b", "c", "d", "e"]
    desk.pool.close()
    before, after = ([f"{when} {name}" for name in "abcd"] for when in ("before", "after"))
    assert desk.done == [*before, *after, "before e", "after e"]


def test_a_thread_leaves_the_others_their_share():
    met = threading.Barrier(2)

    def meeting() -> SteppedTask[int]:
        yield
        return met.wait(10)  # breaks if one thread does both

    async def go(desk: Desk) -> list[int]:
        held = [await desk.hold(), await desk.hold()]
        waiting = [asyncio.create_task(desk.pool.run(meeting())) for _ in range(2)]
        await asyncio.sleep(0)
        desk.free.set()
        await asyncio.gather(*held)
        return await asyncio.gather(*waiting)

    desk = Desk(threads=2)
    assert sorted(asyncio.run(go(desk))) == [0, 1]
    desk.pool.close()


def test_one_that_nobody_waits_for_any_more_is_not_begun():
    async def go(desk: Desk) -> None:
        held = await desk.hold()
        gone = asyncio.create_task(desk.pool.run(desk.step("gone")))
        stays = asyncio.create_task(desk.pool.run(desk.step("stays")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        desk.free.set()
        assert await stays == "stays"
        await held

    desk = Desk()
    asyncio.run(go(desk))
    desk.pool.close()
    assert desk.done == ["before stays", "after stays"]


def test_closing_finishes_what_waits():
    async def go(desk: Desk) -> list[str]:
        held = await desk.hold()
        waiting = [asyncio.create_task(desk.pool.run(desk.step(name))) for name in "abcdef"]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(desk.pool.close))
        desk.free.set()
        await asyncio.gather(held, closing)
        return await asyncio.gather(*waiting)

    assert asyncio.run(go(Desk(threads=2))) == ["a", "b", "c", "d", "e", "f"]


def test_an_answer_that_was_given_is_not_kept():
    class Large:
        pass

    async def go(pool: ScoringPool) -> weakref.ref[Large]:
        def work() -> SteppedTask[Large]:
            yield
            return Large()

        return weakref.ref(await pool.run(work()))

    pool = ScoringPool(threads=1, queue=1, max_pending_bytes=10)
    kept = asyncio.run(go(pool))
    for _ in range(100):  # the thread lets go of it a moment after it has told
        if kept() is None:
            break
        time.sleep(0.01)
    assert kept() is None
    pool.close()


def test_places_are_counted_and_given_back():
    pool = ScoringPool(threads=1, queue=1, max_pending_bytes=10)
    with pool.reserve_slot() as first, pool.reserve_slot():
        first.reserve_bytes(6)
        with pytest.raises(RequestError) as refusal:
            pool.refuse_if_full()
        assert refusal.value.headers == {"Retry-After": "1"}
    pool.refuse_if_full()
    assert (pool.cases, pool.pending_bytes) == (0, 0)


def test_memory_is_bounded_over_all_requests_together():
    pool = ScoringPool(threads=1, queue=1, max_pending_bytes=10)
    with pool.reserve_slot() as first, pool.reserve_slot() as second:
        first.reserve_bytes(6)
        with pytest.raises(RequestError) as refusal:
            second.reserve_bytes(5)
        assert refusal.value.code == "busy"
        second.reserve_bytes(4)
    assert pool.pending_bytes == 0
