"""The order of reading: overdue first, then by band, then by waiting time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from triage_server.page.reading_order import Urgency

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def urgency(band: int, waited_hours: float, deadline_hours: float | None = None) -> Urgency:
    return Urgency(band, NOW - timedelta(hours=waited_hours), deadline_hours)


def read_in_order(*urgencies: Urgency) -> list[Urgency]:
    return sorted(urgencies, key=lambda one: one.sort_key(NOW))


def test_band_goes_before_waiting_time_and_waiting_time_decides_within_a_band() -> None:
    old_last, new_first, old_first = urgency(4, 90), urgency(1, 1), urgency(1, 2)
    assert read_in_order(old_last, new_first, old_first) == [old_first, new_first, old_last]


def test_overdue_goes_before_every_band_and_the_oldest_of_them_first() -> None:
    first, late, later = urgency(1, 1, 24), urgency(4, 25, 24), urgency(3, 30, 24)
    assert read_in_order(first, late, later) == [later, late, first]


def test_case_is_not_overdue_at_its_deadline_and_is_behind_it() -> None:
    assert not urgency(4, 24, 24).is_overdue(NOW)
    assert urgency(4, 24.001, 24).is_overdue(NOW)
    assert not urgency(4, 10_000).is_overdue(NOW)


urgencies = st.builds(
    urgency, st.integers(1, 4), st.floats(0, 1000), st.one_of(st.none(), st.floats(0.1, 1000))
)


@given(st.lists(urgencies, min_size=2, max_size=8))
def test_nobody_in_front_is_less_urgent_in_every_way(queued: list[Urgency]) -> None:
    order = read_in_order(*queued)
    for position, one in enumerate(order):
        for other in order[position + 1 :]:
            better = (
                other.is_overdue(NOW) >= one.is_overdue(NOW)
            ) and other.priority_band <= one.priority_band
            assert not (better and other.arrived_at < one.arrived_at)


@given(st.lists(urgencies, min_size=1, max_size=8), st.floats(0, 500))
def test_waiting_longer_never_moves_a_case_back(queued: list[Urgency], hours: float) -> None:
    """The oldest of cases with the same deadline is overtaken by none of the others as time goes by."""
    same = [Urgency(one.priority_band, one.arrived_at, 48.0) for one in queued]
    oldest = min(same, key=lambda one: one.arrived_at)
    later = NOW + timedelta(hours=hours)
    before = sorted(same, key=lambda one: one.sort_key(NOW)).index(oldest)
    after = sorted(same, key=lambda one: one.sort_key(later)).index(oldest)
    assert after <= before


def test_deadline_beyond_the_calendar_is_never_due() -> None:
    for hours in (1e9, 1e300):
        one = urgency(2, 5.0, hours)
        assert one.due_at is None
        assert not one.is_overdue(NOW)
        assert one.sort_key(NOW) == (2, one.arrived_at)
