"""Shadow bundles: they score a case after another bundle has answered it, for the record only.

Imports the bundle's scorer, the pool, the recorder and the counters. Nothing here is ever part of an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lesion_triage.bundle.schema import Disposition
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.errors import LesionTriageError
from triage_server.audit_chain import ChainEnd
from triage_server.intake import SentCase
from triage_server.pool import ScoringPool
from triage_server.problems import RequestError
from triage_server.record import Recorder, SentAnswer, decision_fields
from triage_server.telemetry import Move, ShadowOutcome, Telemetry

_POLL_INTERVAL_S = 0.02
_SHARE_OF_MEMORY = 4

log = logging.getLogger("triage_server")


@dataclass(frozen=True, slots=True)
class _QueuedCase:
    """An answered case on its way to the shadows."""

    case: SentCase
    answer: SentAnswer
    request_id: str
    caller: str
    end: ChainEnd | None
    """Of the answer's line; None if there is no log."""
    size_bytes: int


class ShadowScorer:
    """A bounded queue and one thread, which begins a case only while an answering thread is idle.

    Its counters belong to the event loop.
    """

    def __init__(
        self, scorers: Sequence[Scorer], pool: ScoringPool, queue: int, telemetry: Telemetry
    ) -> None:
        """Set up; nothing runs yet.

        Args:
            scorers: of bundles that have passed every check of a served bundle.
            pool: where cases are answered. The shadows may hold another quarter of its memory limit.
            queue: cases that may wait here.
            telemetry: counts.
        """
        self._scorers, self._pool, self._most, self._telemetry = scorers, pool, queue, telemetry
        self._most_bytes = pool.max_pending_bytes // _SHARE_OF_MEMORY
        self._waiting: deque[_QueuedCase] = deque()
        self._held_bytes = 0
        self._thread: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        for scorer in scorers:
            telemetry.add_shadow(scorer.bundle.sha256)

    def enqueue(
        self, recorder: Recorder, answer: SentAnswer, request_id: str, caller: str, end: ChainEnd | None
    ) -> None:
        """Have the shadows score a case whose answer is recorded; returns at once.

        Args:
            recorder: that recorded the answer.
            answer: with its case. A repeated answer is ignored: its case was scored before.
            request_id: of its request.
            caller: who sent it.
            end: of the answer's line; None if there is no log.
        """
        if not self._scorers or answer.case is None or answer.repeated:
            return
        size = sum(map(len, answer.case.images))
        if len(self._waiting) >= self._most or self._held_bytes + size > self._most_bytes:
            self._count_all("dropped")
            return
        self._waiting.append(_QueuedCase(answer.case, answer, request_id, caller, end, size))
        self._held_bytes += size
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._score_queued_cases(recorder))

    async def close(self) -> None:
        """Finish the case in progress; drop and count those waiting."""
        self._closing = True
        for _ in self._waiting:
            self._count_all("dropped")
        self._waiting = deque()
        if self._task is not None:
            await self._task
        if self._thread is not None:
            self._thread.shutdown()

    async def _score_queued_cases(self, recorder: Recorder) -> None:
        while self._waiting:
            if self._pool.cases >= self._pool.threads and not self._closing:
                await asyncio.sleep(_POLL_INTERVAL_S)
                continue
            queued = self._waiting.popleft()
            for scorer in self._scorers:
                if scorer.bundle.sha256 != queued.answer.fields["bundle_sha256"]:
                    await self._score_and_record(scorer, queued, recorder)
            self._held_bytes -= queued.size_bytes

    async def _score_and_record(self, scorer: Scorer, queued: _QueuedCase, recorder: Recorder) -> None:
        bundle = scorer.bundle.sha256
        try:
            found = await self._score(scorer, queued.case)
        except LesionTriageError as error:
            outcome: ShadowOutcome = "failed"
            line: dict[str, object] = {"problem": type(error).__name__}
        except Exception as error:  # a shadow must never affect the service
            log.error("shadow failed", exc_info=error, extra={"fields": {"request_id": queued.request_id}})
            outcome, line = "failed", {"problem": "internal_error"}
        else:
            outcome, line = "scored", self._comparison_fields(bundle, queued.answer.fields, found)
        line |= {
            "bundle_sha256": bundle,
            "certificate_id": scorer.bundle.certificate.certificate_id(),
            "answered": _answered_line(queued),
        }
        try:
            await recorder.write("shadow", queued.request_id, queued.caller, line)
        except RequestError:
            outcome = "unrecorded"
        self._telemetry.count_shadow(bundle, outcome)

    def _comparison_fields(
        self, bundle: str, answer: Mapping[str, object], found: Mapping[str, object]
    ) -> dict[str, object]:
        referral, band = compare_decisions(answer, found)
        before, after = answer["score"], found["score"]
        difference = after - before if isinstance(before, float) and isinstance(after, float) else None
        self._telemetry.count_shadow_agreement(bundle, referral, band, difference)
        kept = ("disposition", "priority_band", "score", "threshold", "reasons")
        return {"referral": referral, "band": band} | {name: found[name] for name in kept}

    async def _score(self, scorer: Scorer, case: SentCase) -> dict[str, object]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: decision_fields(scorer.score(case.images, case.history))
        )

    def _count_all(self, outcome: ShadowOutcome) -> None:
        for scorer in self._scorers:
            self._telemetry.count_shadow(scorer.bundle.sha256, outcome)


def compare_decisions(answer: Mapping[str, object], shadow: Mapping[str, object]) -> tuple[Move, Move]:
    """How the shadow would have moved a case: its referral, and its band.

    An ungradable case counts as referred, as in the certificate.
    """
    referred = [one["disposition"] != Disposition.below_threshold.value for one in (answer, shadow)]
    bands = [one["priority_band"] for one in (answer, shadow)]
    assert isinstance(bands[0], int)
    assert isinstance(bands[1], int)
    return _move(int(referred[1]) - int(referred[0])), _move(bands[0] - bands[1])


def _move(upwards: int) -> Move:
    if upwards == 0:
        return "same"
    return "up" if upwards > 0 else "down"


def _answered_line(queued: _QueuedCase) -> dict[str, object]:
    kept = ("bundle_sha256", "disposition", "priority_band", "score")
    number = None if queued.end is None else queued.end.sequence
    return {"sequence": number} | {name: queued.answer.fields[name] for name in kept}
