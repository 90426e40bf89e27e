from __future__ import annotations

import pytest

from lesion_triage.bundle.interleaving import (
    SteppedTask,
    interleave,
    run_interleaved,
    run_to_completion,
    single_step,
)


def test_each_step_is_done_of_all_before_the_next():
    done: list[str] = []

    def work(name: str, steps: int) -> SteppedTask[str]:
        for step in range(steps):
            done.append(f"{name}{step}")
            yield
        return name

    ended = list(interleave([work("a", 2), work("b", 1), work("c", 2)]))
    assert done == ["a0", "b0", "c0", "a1", "c1"]
    assert ended == [[(1, "b")], [(0, "a"), (2, "c")]]  # b is told of at once


def test_one_that_fails_takes_nothing_from_the_others():
    def failing() -> SteppedTask[int]:
        yield
        raise ValueError("mine")

    def working() -> SteppedTask[int]:
        yield
        yield
        return 7

    first, second = interleave([failing(), working()])
    ((place, error),) = first
    assert place == 0
    assert isinstance(error, ValueError)
    assert second == [(1, 7)]
    with pytest.raises(ValueError, match="mine"):
        run_interleaved([working(), failing()])


def test_results_stand_in_the_order_of_the_work_whichever_ends_first():
    def work(steps: int) -> SteppedTask[int]:
        for _ in range(steps):
            yield
        return steps

    assert run_interleaved([work(3), work(0), work(1)]) == [3, 0, 1]
    assert run_interleaved([]) == []


def test_work_of_one_step_and_work_alone():
    assert run_to_completion(single_step(lambda: 5)) == 5
    with pytest.raises(ZeroDivisionError):
        run_to_completion(single_step(lambda: 1 // 0))
