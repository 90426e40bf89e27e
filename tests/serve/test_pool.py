from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest

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
    assert asyncio.run(pool.run(priority)) > ours  # a greater number waits for a smaller
    assert priority() == ours
    pool.close()


def test_places_are_counted_and_given_back():
    pool = ScoringPool(threads=1, queue=1, max_pending_bytes=10)
    with pool.place() as first, pool.place():
        first.take(6)
        with pytest.raises(RequestError) as refusal:
            pool.refuse_if_full()
        assert refusal.value.headers == {"Retry-After": "1"}
    pool.refuse_if_full()
    assert (pool.cases, pool.pending_bytes) == (0, 0)


def test_memory_is_bounded_over_all_requests_together():
    pool = ScoringPool(threads=1, queue=1, max_pending_bytes=10)
    with pool.place() as first, pool.place() as second:
        first.take(6)
        with pytest.raises(RequestError) as refusal:
            second.take(5)
        assert refusal.value.code == "busy"
        second.take(4)
    assert pool.pending_bytes == 0
