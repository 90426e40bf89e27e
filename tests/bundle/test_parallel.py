"""Processors are counted on every system, and work on them comes back in its order."""

import os
import threading
import time

import pytest

from lesion_triage.bundle.parallel import available_cpus, thread_map


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds a process to processors")
def test_processors_that_are_not_granted_are_not_counted() -> None:
    granted = os.sched_getaffinity(0)
    assert available_cpus() == len(granted)
    try:
        os.sched_setaffinity(0, {min(granted)})
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, granted)


def test_a_system_that_binds_no_process_to_processors_grants_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert available_cpus() == os.cpu_count()
    assert thread_map(abs, [-1, 2]) == [1, 2]


def test_results_have_the_order_of_the_items_and_are_told_one_by_one_in_this_thread() -> None:
    told = []

    def work(number: int) -> int:
        time.sleep(0.01 * (3 - number))  # the last is done first
        return number * number

    def tick(done: int, total: int) -> None:
        told.append((done, total, threading.current_thread()))

    assert thread_map(work, range(4), tick) == [0, 1, 4, 9]
    assert told == [(done, 4, threading.current_thread()) for done in (1, 2, 3, 4)]
    assert thread_map(work, []) == []


def test_the_first_item_that_failed_is_the_one_that_is_told_of() -> None:
    def work(number: int) -> int:
        if number:
            raise ValueError(f"item {number}")
        return number

    with pytest.raises(ValueError, match="item 1"):
        thread_map(work, [0, 1, 2])
