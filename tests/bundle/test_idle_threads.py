"""Pieces of work that are shared with threads that have nothing else to do."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from lesion_triage.bundle.idle_threads import run_with_idle_threads


def names(count: int, done: list[tuple[int, str]]) -> list[Callable[[], int]]:
    def piece(number: int) -> int:
        done.append((number, threading.current_thread().name))
        return number

    return [lambda number=number: piece(number) for number in range(count)]


def test_nothing_waits_for_a_helper_that_does_not_come():
    free, done = threading.Event(), list[tuple[int, str]]()
    with ThreadPoolExecutor(1, "helper") as helpers:
        helpers.submit(free.wait, 10)
        assert [each.result() for each in run_with_idle_threads(names(4, done), helpers)] == [0, 1, 2, 3]
        free.set()
    assert done == [
        (number, threading.current_thread().name) for number in range(4)
    ]  # and none is done twice


def test_a_helper_begins_at_the_end_and_each_piece_is_done_once():
    last, done = threading.Event(), list[tuple[int, str]]()
    pieces = names(4, done)

    def first() -> int:
        assert last.wait(10)
        return pieces[0]()

    def fourth() -> int:
        try:
            return pieces[3]()
        finally:
            last.set()

    with ThreadPoolExecutor(1, "helper") as helpers:
        outcomes = run_with_idle_threads([first, pieces[1], pieces[2], fourth], helpers)
    assert [each.result() for each in outcomes] == [0, 1, 2, 3]
    assert sorted(number for number, _ in done) == [0, 1, 2, 3]
    here = threading.current_thread().name
    by = dict(done)
    assert by[0] == here
    assert by[3].startswith("helper")


def test_a_failure_is_told_to_whoever_asks():
    def failing() -> int:
        raise ValueError("mine")

    with ThreadPoolExecutor(1) as helpers:
        outcomes = run_with_idle_threads([failing, lambda: 1, failing], helpers)
    assert outcomes[1].result() == 1
    for place in (0, 2):
        with pytest.raises(ValueError, match="mine"):
            outcomes[place].result()
