"""The simulator against closed forms, a plain one written for the test, a published one, and itself.

Tolerance: four of the simulation's own standard errors, which have a test of their own; wherever that is used
the standard error must also be small, so that agreement means something.
"""

from __future__ import annotations

import math
from dataclasses import replace

import ciw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, poisson

from lesion_triage.calibrate.queue_pool import GROUPS, ORDERS, Pool, binormal_scores
from lesion_triage.calibrate.queueing import (
    FIRST_COME,
    STATISTICS,
    Discipline,
    Workload,
    reading_order,
    reading_starts,
    simulate,
)
from lesion_triage.errors import CalibrationError

BAND_SHARES = (0.10, 0.25, 0.35, 0.30)
BAND_SCORES = (0.9, 0.7, 0.5, 0.1)
LIMITS = (0.8, 0.6, 0.4)


def banded_pool(positive_band=None):
    """A hundred cases, ``BAND_SHARES`` of them in each band; one positive per band, or one in that band."""
    scores, positive = [], []
    for band, (share, score) in enumerate(zip(BAND_SHARES, BAND_SCORES, strict=True), start=1):
        cases = round(100 * share)
        scores += [score] * cases
        positive += [positive_band in (None, band)] + [False] * (cases - 1)
    return Pool(np.array(scores), np.array(positive), 0.65, LIMITS)


def agrees(found, expected, precision=0.05):
    assert found.standard_error <= precision * expected, "too noisy to say anything"
    assert abs(found.value - expected) <= 4 * found.standard_error


def erlang_c(workload):
    """Chance to wait, by the definition: Erlang's sums, not our recursion."""
    offered = workload.load * workload.readers
    blocked = poisson.pmf(workload.readers, offered) / poisson.cdf(workload.readers, offered)
    return blocked / (1 - workload.load * (1 - blocked))


def residual_minutes(workload):
    """Mean time until a reader is free, as an arrival sees it: W0 of Cobham (1954, Oper. Res. 2:70)."""
    if workload.readers == 1:
        return workload.load * workload.minutes_per_case * (1 + workload.variation**2) / 2
    assert workload.variation == 1
    return erlang_c(workload) * workload.minutes_per_case / workload.readers


def cobham(workload, shares):
    """Mean wait of each class without preemption, the most urgent first."""
    upto = workload.load * np.cumsum([0.0, *shares])
    return residual_minutes(workload) / ((1 - upto[:-1]) * (1 - upto[1:]))


EXPONENTIAL = Workload(0.8)
WORKLOADS = [
    EXPONENTIAL,
    Workload(0.8, readers=3, minutes_per_case=2.0),
    Workload(0.85, variation=0.0),
    Workload(0.7, variation=2.0),
]


@pytest.fixture(scope="module", params=WORKLOADS, ids=str)
def simulated(request):
    disciplines = [Discipline(order) for order in ORDERS]
    outcomes = simulate(banded_pool(), request.param, disciplines, cases=100_000, seed=1)
    return request.param, {outcome.discipline.order: outcome.waits for outcome in outcomes}


def test_first_come_has_the_mean_of_pollaczek_and_khinchine_or_of_erlang(simulated):
    workload, waits = simulated
    agrees(waits["first_come"]["all", "mean"].minutes, residual_minutes(workload) / (1 - workload.load))
    assert workload.mean_wait_minutes() == pytest.approx(residual_minutes(workload) / (1 - workload.load))


@pytest.mark.parametrize("simulated", WORKLOADS[:2], indirect=True, ids=str)
def test_exponential_first_come_has_the_quantiles_of_erlang(simulated):
    workload, waits = simulated
    drain = workload.readers * (1 - workload.load) / workload.minutes_per_case
    for statistic, level in (("p95", 0.95), ("p99", 0.99)):
        expected = math.log(erlang_c(workload) / (1 - level)) / drain
        agrees(waits["first_come"]["all", statistic].minutes, expected, 0.1)


def test_a_binary_flag_has_the_means_of_two_priority_classes(simulated):
    workload, waits = simulated
    flagged, missed = cobham(workload, (0.35, 0.65))
    agrees(waits["binary_flag"]["referred_positives", "mean"].minutes, flagged)
    agrees(waits["binary_flag"]["missed_positives", "mean"].minutes, missed)
    agrees(waits["binary_flag"]["positives", "mean"].minutes, (2 * flagged + 2 * missed) / 4)


@pytest.mark.parametrize("band", [1, 2, 3, 4])
def test_four_bands_have_the_means_of_four_priority_classes(band):
    (_, outcome) = simulate(
        banded_pool(band), EXPONENTIAL, [Discipline("four_bands")], cases=120_000, seed=band
    )
    agrees(outcome.waits["positives", "mean"].minutes, cobham(EXPONENTIAL, BAND_SHARES)[band - 1])


def test_score_order_of_four_scores_is_four_bands(simulated):
    _, waits = simulated
    assert waits["score_order"] == waits["four_bands"]


def test_no_order_changes_the_mean_wait_of_all(simulated):
    """Kleinrock's conservation law, and with Little's law the mean number waiting."""
    _, waits = simulated
    for order in ORDERS:
        relative = waits[order]["all", "mean"].relative
        assert relative.value == pytest.approx(1, abs=0.005)
        flagged, missed = (waits["binary_flag"][group, "mean"] for group in GROUPS[2:4])
        mixed = 0.35 * flagged.relative.value + 0.65 * missed.relative.value
        assert mixed == pytest.approx(1, abs=0.005)


def test_under_first_come_the_groups_wait_alike(simulated):
    _, waits = simulated
    for statistic in STATISTICS:
        values = [waits["first_come"][group, statistic].minutes.value for group in GROUPS]
        assert values == pytest.approx([values[0]] * len(GROUPS))
        assert waits["first_come"]["all", statistic].relative.value == 1


def test_a_model_of_known_auroc_gets_the_ratios_of_the_formula():
    scores, positive = binormal_scores(0.955, 0.07)
    apart = math.sqrt(2) * norm.ppf(0.955)
    threshold = float(np.quantile(scores[positive], 0.03, method="inverted_cdf"))
    pool = Pool(scores, positive, threshold, (1.0, 1.0, threshold))
    flagged_share = float(pool.arrival_probabilities()[pool.referred].sum())
    # Twenty thousand cases instead of a density: half a case of 1,400 at the threshold is a few in 1,000.
    assert flagged_share == pytest.approx(0.07 * 0.97 + 0.93 * norm.sf(apart + norm.ppf(0.03)), abs=0.003)
    (_, outcome) = simulate(pool, Workload(0.8), [Discipline("binary_flag")], cases=100_000)
    flagged, missed = cobham(Workload(0.8), (flagged_share, 1 - flagged_share))
    first_come = Workload(0.8).mean_wait_minutes()
    agrees(outcome.waits["referred_positives", "mean"].relative, flagged / first_come)
    agrees(outcome.waits["missed_positives", "mean"].relative, missed / first_come)


def published_simulator(workload, deadline, seed, minutes):
    """Waits by band according to ciw; a case that is overdue changes into a class above all."""
    ciw.seed(seed)
    bands = [f"band {number}" for number in (1, 2, 3, 4)]
    names, overdue = ["overdue", *bands], {"overdue": ciw.dists.Deterministic(deadline)}
    arrivals = {
        band: [ciw.dists.Exponential(workload.arrivals_per_minute * share)]
        for band, share in zip(bands, BAND_SHARES, strict=True)
    }
    network = ciw.create_network(
        arrival_distributions={"overdue": [None], **arrivals},
        service_distributions={
            name: [ciw.dists.Exponential(1 / workload.minutes_per_case)] for name in names
        },
        routing={name: [[0.0]] for name in names},
        priority_classes={name: number for number, name in enumerate(names)},
        number_of_servers=[workload.readers],
        class_change_time_distributions=dict.fromkeys(bands, overdue),
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_time(minutes)
    records = [one for one in simulation.get_all_records() if one.arrival_date > 0.1 * minutes]
    return [
        np.array([one.waiting_time for one in records if one.original_customer_class == band])
        for band in bands
    ]


@pytest.mark.parametrize(("readers", "deadline"), [(1, 40.0), (2, 20.0)])
def test_a_published_simulator_finds_the_same_waits_under_four_bands_with_a_deadline(readers, deadline):
    workload = Workload(0.7, readers=readers)
    length = 6000 / workload.arrivals_per_minute
    runs = [published_simulator(workload, deadline, seed, length) for seed in range(8)]
    for band, statistics in ((1, ("mean",)), (4, ("mean", "p95"))):
        (_, outcome) = simulate(
            banded_pool(band), workload, [Discipline("four_bands", deadline)], cases=100_000, seed=band
        )
        for statistic in statistics:
            ours = outcome.waits["positives", statistic].minutes
            of = np.mean if statistic == "mean" else lambda waits: np.quantile(waits, 0.95)
            theirs = [float(of(run[band - 1])) for run in runs]
            error = math.hypot(ours.standard_error, np.std(theirs, ddof=1) / math.sqrt(len(theirs)))
            assert error < 0.08 * ours.value, "too noisy to say anything"
            assert abs(ours.value - np.mean(theirs)) <= 4 * error


WHOLE = st.integers(0, 9).map(float)


@st.composite
def days(draw):
    """A few cases with whole numbers for times, so that much happens at the same moment."""
    cases = draw(st.integers(1, 12))
    gaps, minutes = (draw(st.lists(WHOLE, min_size=cases, max_size=cases)) for _ in range(2))
    urgency = draw(st.lists(st.integers(0, 3), min_size=cases, max_size=cases))
    return np.cumsum(gaps), np.array(minutes), np.array(urgency, dtype=np.intp)


def plainly(arrivals, minutes, urgency, readers, deadline):
    """Starts and order of reading by looking at everyone who waits, each time someone is free."""
    free, left, now, starts, order = [0.0] * readers, set(range(arrivals.size)), 0.0, [], []
    while left:
        now = max(now, min(free), min(arrivals[case] for case in left))
        here = [case for case in left if arrivals[case] <= now]
        overdue = [case for case in here if arrivals[case] + deadline <= now]
        case = min(overdue) if overdue else min(here, key=lambda one: (urgency[one], one))
        free[free.index(min(free))] = now + minutes[len(starts)]
        starts.append(now)
        order.append(case)
        left.remove(case)
    return starts, order


@given(day=days(), readers=st.integers(1, 4), deadline=WHOLE | st.just(math.inf))
def test_every_single_reading_is_the_one_that_the_rule_says(day, readers, deadline):
    arrivals, minutes, urgency = day
    starts = reading_starts(arrivals, minutes, readers)
    order = reading_order(arrivals, starts, urgency, deadline)
    assert (starts.tolist(), order.tolist()) == plainly(arrivals, minutes, urgency, readers, deadline)


@given(day=days(), readers=st.integers(1, 4), deadline=WHOLE | st.just(math.inf))
def test_each_case_waits_once_and_the_total_wait_is_that_of_first_come(day, readers, deadline):
    arrivals, minutes, urgency = day
    starts = reading_starts(arrivals, minutes, readers)
    order = reading_order(arrivals, starts, urgency, deadline)
    assert sorted(order.tolist()) == list(range(arrivals.size))
    waits = starts - arrivals[order]
    assert (waits >= 0).all()
    assert waits.sum() == (starts - arrivals).sum()


@given(day=days(), readers=st.integers(1, 4))
def test_a_deadline_of_zero_is_first_come_and_one_never_reached_is_none(day, readers):
    arrivals, minutes, urgency = day
    starts = reading_starts(arrivals, minutes, readers)
    assert reading_order(arrivals, starts, urgency, 0.0).tolist() == list(range(arrivals.size))
    never = float((starts - arrivals[0]).max()) + 1
    without = reading_order(arrivals, starts, urgency, math.inf)
    assert reading_order(arrivals, starts, urgency, never).tolist() == without.tolist()


def test_deadlines_lie_between_first_come_and_none_and_reach_both_exactly():
    asked = [Discipline("four_bands", deadline) for deadline in (0.0, 30.0, 90.0, 1e9, math.inf)]
    outcomes = simulate(banded_pool(), EXPONENTIAL, asked, cases=20_000)
    assert [outcome.discipline for outcome in outcomes] == [FIRST_COME, *asked]
    first_come, at_once, *_, never, none = (outcome.waits for outcome in outcomes)
    for statistic in STATISTICS:
        assert at_once["all", statistic] == first_come["all", statistic]
    assert never == none
    for group, rises in (("referred_positives", False), ("missed_positives", True)):
        means = [outcome.waits[group, "mean"].minutes.value for outcome in outcomes[1:]]
        assert means == sorted(means, reverse=not rises)


def test_the_same_seed_gives_the_same_numbers_and_another_others():
    one, same, other = (
        simulate(banded_pool(), EXPONENTIAL, [FIRST_COME], cases=2000, seed=seed) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_standard_errors_are_those_of_repeating_the_simulation():
    """(value - truth) / standard error over many seeds: mean square that of Student's t, 19 degrees."""
    repeats = 60
    pool, exact = banded_pool(), cobham(Workload(0.5), (0.35, 0.65))[1]
    scores = []
    for seed in range(repeats):
        (_, outcome) = simulate(pool, Workload(0.5), [Discipline("binary_flag")], cases=8000, seed=seed)
        found = outcome.waits["missed_positives", "mean"].minutes
        scores.append((found.value - exact) / found.standard_error)
    # Mean 0 and mean square 19/17; each within four of its own standard errors (kurtosis of t: 3 + 6/15).
    assert abs(np.mean(scores)) < 4 * math.sqrt(19 / 17 / repeats)
    assert abs(np.mean(np.square(scores)) - 19 / 17) < 4 * 19 / 17 * math.sqrt(2.4 / repeats)


def test_reading_times_have_the_mean_and_variation_asked_for():
    generator = np.random.default_rng(0)
    for variation in (0.0, 0.3, 1.0, 1.5):
        workload = Workload(0.8, readers=2, minutes_per_case=7.0, variation=variation)
        arrivals, minutes = workload.draw(generator, 200_000)
        assert minutes.mean() == pytest.approx(7.0, rel=0.02)
        assert minutes.std() == pytest.approx(7.0 * variation, rel=0.02)
        assert np.diff(arrivals).mean() == pytest.approx(7.0 / 0.8 / 2, rel=0.02)


def test_a_wished_prevalence_changes_how_many_are_flagged():
    """Half of the pool's positives are flagged and no negative is: at 20 % a tenth of all goes first."""
    pool = Pool(np.array([0.9, 0.1, 0.1, 0.1]), np.array([True, True, False, False]), 0.5, (0.5, 0.5, 0.5))
    (_, outcome) = simulate(pool, EXPONENTIAL, [Discipline("binary_flag")], prevalence=0.2, cases=60_000)
    agrees(outcome.waits["missed_positives", "mean"].minutes, cobham(EXPONENTIAL, (0.1, 0.9))[1])


def test_a_group_without_members_is_left_out():
    pool = Pool(np.array([0.9, 0.1]), np.array([True, False]), 0.5, (0.5, 0.5, 0.5))
    (outcome,) = simulate(pool, EXPONENTIAL, [FIRST_COME], cases=200)
    assert {group for group, _ in outcome.waits} == set(GROUPS) - {"missed_positives"}


def test_where_nobody_waits_there_is_no_ratio():
    (outcome,) = simulate(banded_pool(), Workload(0.001), [FIRST_COME], cases=200)
    assert outcome.waits["all", "p95"].minutes.value == 0
    assert outcome.waits["all", "p95"].relative is None


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Workload(1.0), "the load is 1.0, expected more than 0 and less than 1"),
        (lambda: Workload(0.0), "the load is 0.0"),
        (lambda: Workload(math.nan), "the load is nan"),
        (lambda: Workload(0.9, readers=0), "expected 1 to 10,000 readers, found 0"),
        (lambda: Workload(0.9, minutes_per_case=0.0), "a reading takes 0.0 minutes"),
        (lambda: Workload(0.9, minutes_per_case=math.nan), "a reading takes nan minutes"),
        (lambda: Workload(0.9, variation=-1.0), "the variation of the reading time is -1, expected 0"),
        (lambda: Discipline("four_bands", -1.0), "the deadline is -1.0 minutes, expected 0 or more"),
        (lambda: Discipline("four_bands", math.nan), "the deadline is nan minutes"),
        (lambda: Discipline("last_come"), "the order is 'last_come', expected one of first_come, "),
        (lambda: Workload(0.5, variation=1e200), "is 1e+200, expected 0 (constant) to 100"),
        (lambda: Workload(0.5, readers=10**9), "expected 1 to 10,000 readers, found 1,000,000,000"),
        (lambda: simulate(banded_pool(), Workload(0.9999), []), "arrivals, expected at most 20,000,000"),
        (lambda: simulate(banded_pool(), Workload(1 - 2**-53), []), "simulated arrivals, expected at most"),
        (lambda: simulate(banded_pool(), Workload(0.5, variation=100), [], cases=10**8), "expected at most"),
        (lambda: simulate(banded_pool(), EXPONENTIAL, [], cases=1), "as many cases, found 20 and 1"),
        (lambda: simulate(banded_pool(), EXPONENTIAL, [], replications=1), "at least 2 replications"),
        (lambda: simulate(banded_pool(), EXPONENTIAL, [], prevalence=1.5), "the prevalence is 1.5"),
        (lambda: simulate(banded_pool(), EXPONENTIAL, [], seed=-1), "the seed is -1"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_sentence(build, sentence):
    with pytest.raises(CalibrationError) as caught:
        build()
    assert sentence in str(caught.value)
    assert str(caught.value).count(". ") == 0


def test_a_workload_is_refused_however_it_is_made():
    with pytest.raises(CalibrationError):
        replace(EXPONENTIAL, load=2.0)


def test_band_that_holds_nobody_between_two_that_do_is_no_error():
    scores = np.array([0.9, 0.9, 0.1, 0.1])
    pool = Pool(scores, np.array([True, False, True, False]), 0.5, (0.8, 0.6, 0.2))
    assert set(pool.bands()) == {1, 4}
    (_, bands) = simulate(pool, Workload(0.5), [Discipline("four_bands")], cases=400, replications=4)
    assert bands.waits["positives", "mean"].minutes.value > 0
