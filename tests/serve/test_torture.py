"""The short forms of ``make torture-service``, and the long ones behind the mark ``torture``."""

from __future__ import annotations

import os
import sys

import pytest

import torture_service as torture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at memory as Linux tells it")


@pytest.mark.parametrize("number", [1200, pytest.param(100_000, marks=pytest.mark.torture)])
@pytest.mark.timeout(7200)
def test_no_hostile_picture_is_scored_or_brings_the_server_down(number: int):
    first = int(os.environ.get("TORTURE_FIRST", "0"))
    found = torture.hostile_pictures(number, first)
    assert found.statuses["200 below_threshold"] > number // 50, "honest cases were answered all the while"
    refused = sum(count for status, count in found.statuses.items() if status.startswith("4"))
    assert refused > number // 5
    assert len({kind for kind, _ in found.by_kind}) >= 16


def test_what_overload_does_not_let_in_is_refused_and_the_rest_is_answered():
    _, found = torture.overload(4.0, rounds=4)
    assert found.accepted
    assert len(found.refused) > len(found.accepted)


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_ten_times_the_load_for_a_minute_slows_those_who_are_let_in_by_half_at_most():
    full, found = torture.overload(60.0)
    assert torture.told(full, found) <= 2.0
    assert torture.percentile(found.refused, 0.99) < full["p50"]
