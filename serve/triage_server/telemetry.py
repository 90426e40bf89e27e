"""Metrics in the Prometheus format. Imports prometheus_client.

No label holds anything from a request: routes are templates, codes are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
SwapOutcome = Literal["swapped", "refused"]
ClosedConnectionCause = Literal["too_many", "handshake"]
WebhookOutcome = Literal["accepted", "failed", "delivered", "undelivered"]
ShadowOutcome = Literal["scored", "dropped", "failed", "unrecorded"]
Move = Literal["same", "up", "down"]
"""Where a shadow would have put a case, compared with the answer. ``down`` is later, and can do harm."""
_DIFFERENCE_BUCKETS = (-0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Telemetry:
    """The metrics of one application."""

    def __init__(self, bundle_sha256: str, certificate_id: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._bundle_info = Gauge(
            "triage_bundle_info",
            "The bundle and certificate that are served.",
            ("bundle", "certificate"),
            registry=self._registry,
        )
        self._served: list[tuple[str, str]] = []
        self.set_bundle(bundle_sha256, certificate_id)
        self._requests = self._counter("triage_requests", "Requests answered.", "method", "route", "status")
        self._request_seconds = Histogram(
            "triage_request_seconds",
            "From the head of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS_BUCKETS,
            registry=self._registry,
        )
        self._closed_connections = self._counter(
            "triage_connections_unheard", "Connections closed before they could send a request.", "cause"
        )
        for cause in get_args(ClosedConnectionCause):
            self._closed_connections.labels(cause)
        self._answers = self._counter("triage_answers", "Cases answered.", "disposition", "priority_band")
        self._repeats = self._counter("triage_repeats", "Answers repeated for an Idempotency-Key.")
        self._reasons = self._counter("triage_reasons", "Reasons given, of cases and of photographs.", "code")
        self._problems = self._counter("triage_problems", "Requests refused.", "code")
        self._swaps = self._counter("triage_swaps", "Bundle swaps while serving, made or refused.", "outcome")
        for outcome in get_args(SwapOutcome):
            self._swaps.labels(outcome)
        self._webhooks = self._counter(
            "triage_webhooks",
            "Answers for callbacks, and failed delivery attempts.",
            "callback",
            "outcome",
        )
        self._shadow_cases = self._counter(
            "triage_shadow_cases", "Cases offered to a shadow bundle.", "bundle", "outcome"
        )
        self._shadow_agreement = self._counter(
            "triage_shadow_agreement",
            "How a shadow bundle would have moved a case: its referral, and its band.",
            "bundle",
            "referral",
            "band",
        )
        self._shadow_difference = Histogram(
            "triage_shadow_score_difference",
            "Score of a shadow bundle minus the score that was answered.",
            ("bundle",),
            buckets=_DIFFERENCE_BUCKETS,
            registry=self._registry,
        )

    def set_bundle(self, bundle_sha256: str, certificate_id: str) -> None:
        """Set the bundle that answers from now on."""
        for former in self._served:
            self._bundle_info.remove(*former)
        self._served = [(bundle_sha256, certificate_id)]
        self._bundle_info.labels(bundle_sha256, certificate_id).set(1)

    def count_swap(self, outcome: SwapOutcome) -> None:
        """Count one attempt to swap the bundle."""
        self._swaps.labels(outcome).inc()

    def add_gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is computed when the metrics are read."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def count_request(self, method: str, route: str | None, status: int | None, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route or "none", str(status)).inc()
        self._request_seconds.labels(route or "none").observe(seconds)

    def count_early_refusal(self, status: int, code: str) -> None:
        """Count one refusal without a whole head, from whose end a duration would be measured."""
        self._requests.labels("none", "none", str(status)).inc()
        self._problems.labels(code).inc()

    def count_closed_connection(self, cause: ClosedConnectionCause) -> None:
        """Count one connection closed before a byte of any request was read."""
        self._closed_connections.labels(cause).inc()

    def count_problem(self, code: str) -> None:
        """Count one refusal."""
        self._problems.labels(code).inc()

    def count_answer(self, disposition: str, priority_band: int, reasons: Iterable[str]) -> None:
        """Count one answered case."""
        self._answers.labels(disposition, str(priority_band)).inc()
        for code in reasons:
            self._reasons.labels(code).inc()

    def count_repeat(self) -> None:
        """Count one repeated answer; its case was counted the first time."""
        self._repeats.inc()

    def count_webhook(self, callback: str, outcome: WebhookOutcome) -> None:
        """Count, for a callback, an accepted answer, a failed attempt, or an outcome."""
        self._webhooks.labels(callback, outcome).inc()

    def add_shadow(self, bundle_sha256: str) -> None:
        """Begin the series of a shadow bundle at 0: for Prometheus one that begins at 1 has not risen."""
        for outcome in get_args(ShadowOutcome):
            self._shadow_cases.labels(bundle_sha256, outcome)
        for referral, band in product(get_args(Move), repeat=2):
            self._shadow_agreement.labels(bundle_sha256, referral, band)
        self._shadow_difference.labels(bundle_sha256)

    def count_shadow(self, bundle_sha256: str, outcome: ShadowOutcome) -> None:
        """Count one case offered to a shadow bundle."""
        self._shadow_cases.labels(bundle_sha256, outcome).inc()

    def count_shadow_agreement(
        self, bundle_sha256: str, referral: Move, band: Move, difference: float | None
    ) -> None:
        """Count where a shadow would have moved a case; ``difference`` is None if either gave no score."""
        self._shadow_agreement.labels(bundle_sha256, referral, band).inc()
        if difference is not None:
            self._shadow_difference.labels(bundle_sha256).observe(difference)

    def render(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)
