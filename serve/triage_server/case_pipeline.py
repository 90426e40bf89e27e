"""The path of a case through the server, the same for every protocol.

In this order: check the caller, check that the answer can be recorded, reserve a slot, read, score, record,
count, hand to the shadows, put into the outbox, remember for repeats. A protocol adapter only turns a
request into a case and an answer into bytes. Imports the modules beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from lesion_triage.bundle.interleaving import SteppedTask
from lesion_triage.bundle.schema import Answer
from lesion_triage.bundle.scorer import CaseDecision
from lesion_triage.errors import ImageError, ScoringError
from triage_server import dicom
from triage_server.audit_chain import ChainEnd
from triage_server.intake import SentCase, check_headers, parse_idempotency_key, read_body
from triage_server.json_body import WIDE_MEMORY_FACTOR, parsing_memory_bytes
from triage_server.pool import CaseSlot
from triage_server.problems import RequestError
from triage_server.record import UNRECORDED, SentAnswer, sent_answer
from triage_server.respond_async import requested_callback
from triage_server.service import Service, language_headers, language_of, service_of
from triage_server.wire import JSON_TYPE

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class ParsedCase:
    """A case as a protocol adapter has parsed it, and how that protocol writes the answer."""

    case: SentCase
    render: Callable[[Answer], bytes]
    """Runs on a thread of the pool."""
    echoed: bytes = b""
    """What the answer repeats of the request beside the case, such as a reference. A request that differs in
    it must not get this answer under the same Idempotency-Key."""


CaseParser = Callable[[], ParsedCase]
"""Runs on a thread of the pool: base64 and DICOM would block the event loop."""


@dataclass(frozen=True, slots=True)
class ProtocolAdapter:
    """How one kind of client sends a case and is answered."""

    name: str
    """As in the audit log."""
    media_types: tuple[str, ...]
    """Of requests."""
    receive: Callable[[Request, CaseSlot], Awaitable[CaseParser]]
    """Reads the body within its limits."""
    answer_media_type: str = JSON_TYPE
    """Of answers."""
    supports_callbacks: bool = False
    """Whether an answer may go to a callback instead."""


async def check_ready(request: Request) -> None:
    """Check that a case would be accepted now.

    Raises:
        RequestError: there is no room for one, its answer could not be recorded, or no caller can be
            authenticated.
    """
    service = service_of(request)
    service.pool.refuse_if_full()
    await service.recorder.require_writable()
    if not await service.authenticator.is_ready():
        raise RequestError("authentication_unavailable", headers={"Retry-After": "2"})


async def respond(request: Request, adapter: ProtocolAdapter) -> Response:
    """Answer one case.

    Raises:
        RequestError: there is no answer; recorded, unless the refusal says nothing about the case.
    """
    audit_fields: dict[str, object] = {"face": adapter.name}
    webhooks = service_of(request).webhooks
    async with recording_refusals(request, audit_fields):
        with (
            await admit(request, adapter.media_types) as slot,
            requested_callback(request, webhooks, audit_fields)
            if adapter.supports_callbacks
            else nullcontext() as callback_request,
        ):
            idempotency_key = parse_idempotency_key(request)
            parse = await receive_in_time(request, adapter.receive(request, slot))
            deadline = answer_deadline(request)
            async with idempotency_lock(request, idempotency_key, deadline):
                result = await score_case(request, parse, audit_fields, idempotency_key, deadline)
                if callback_request is not None:
                    result = callback_request.with_case_id(result, audit_fields, idempotency_key)
                # Inside the slot still, which counts the photographs' bytes: the shadows may want them.
                end = await record_answer(request, result, audit_fields)
                accepted = None if callback_request is None else await callback_request.enqueue(result, end)
                # Last, so that a case that could not be kept for its callback may be sent again without one.
                remember_answer(request, result, audit_fields, idempotency_key)
    request.state.disposition = result.disposition
    headers = language_headers(result.language)
    if end is not None:
        headers["X-Audit-Hash"] = end.head
    if accepted is not None:
        return Response(accepted.document, HTTPStatus.ACCEPTED, headers | accepted.headers, JSON_TYPE)
    return Response(result.body, media_type=adapter.answer_media_type, headers=headers)


@asynccontextmanager
async def recording_refusals(request: Request, audit_fields: Mapping[str, object]) -> AsyncIterator[None]:
    """Record in the audit log why a case got no answer, with what ``audit_fields`` holds by then."""
    try:
        yield
    except RequestError as refusal:
        if refusal.code not in UNRECORDED:
            await record_event(request, "refusal", {**audit_fields, "problem": refusal.code})
        raise
    except ClientDisconnect:
        if (protocol_refusal := getattr(request.state, "refused", None)) is not None:  # within the body
            await record_event(request, "refusal", {**audit_fields, "problem": protocol_refusal.code})
        raise
    except Exception:
        await record_event(request, "refusal", {**audit_fields, "problem": "internal_error"})
        raise


async def admit(request: Request, media_types: Collection[str]) -> AbstractContextManager[CaseSlot]:
    """A slot for one case, if this caller may have it and the answer could be recorded.

    Raises:
        RequestError: there is none, or the headers announce something that is not read here.
    """
    service = service_of(request)
    request.state.caller.require_score_role()
    await service.recorder.require_writable()
    check_headers(request, media_types, service.settings.max_body_bytes)
    return service.pool.reserve_slot()


async def receive_in_time(request: Request, reading: Awaitable[Read]) -> Read:
    """What ``reading`` makes of the body, if it arrives in time.

    Raises:
        RequestError: the body is too long or too slow, or there is no room for it.
    """
    timeout_s = service_of(request).settings.body_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            return await reading
    except TimeoutError:
        raise RequestError("body_not_received", seconds=timeout_s) from None


async def read_json_body(request: Request, slot: CaseSlot) -> bytes:
    """A JSON body, with memory reserved for parsing it.

    Raises:
        RequestError: the body is too long, or there is no room for it.
    """
    limit = service_of(request).settings.max_body_bytes
    body = await read_body(request, max_body_bytes=limit, reserve=slot.reserve_bytes)
    reserve_parsing_memory(request, slot, parsing_memory_bytes(body))
    return body


def reserve_parsing_memory(request: Request, slot: CaseSlot, size_bytes: int) -> None:
    """Reserve what parsing a body takes beside the body itself.

    Raises:
        RequestError: there is no room for it now, or never.
    """
    most = service_of(request).settings.max_pending_bytes
    if slot.held_bytes + size_bytes > most:
        # It would never fit, however long the client waits.
        raise RequestError("body_too_large", limit=most // WIDE_MEMORY_FACTOR)
    slot.reserve_bytes(size_bytes)


@asynccontextmanager
async def idempotency_lock(
    request: Request, idempotency_key: str | None, deadline: float
) -> AsyncIterator[None]:
    """Wait while another request of this caller under this key is being answered: it may be the same case.

    Raises:
        RequestError: it was still being answered at ``deadline``.
    """
    if idempotency_key is None:
        yield
        return
    cache, caller = service_of(request).idempotency_cache, request.state.caller.name
    while (other := cache.begin(caller, idempotency_key)) is not None:
        await within_deadline(request, other.wait(), deadline)
    try:
        yield
    finally:
        cache.end(caller, idempotency_key)


async def score_case(
    request: Request,
    parse: CaseParser,
    audit_fields: dict[str, object],
    idempotency_key: str | None,
    deadline: float,
) -> SentAnswer:
    """Parse the case and score it on a thread of the pool; adds the hashes of the inputs to ``audit_fields``.

    Args:
        request: that brought the case.
        parse: parses it.
        audit_fields: of the audit log.
        idempotency_key: Idempotency-Key under which an earlier answer is looked for; None: for none.
        deadline: by the event loop's clock.

    Raises:
        RequestError: it cannot be parsed or scored, or not in time.
    """
    service, caller = service_of(request), request.state.caller.name
    language = language_of(request)

    def work() -> SteppedTask[SentAnswer]:
        parsed = parse()
        audit_fields.update(service.recorder.input_hashes(parsed.case, parsed.echoed))
        if idempotency_key is not None and (
            kept := service.idempotency_cache.find(caller, idempotency_key, audit_fields)
        ):
            return replace(kept, repeated=True)
        case = extract_photographs(service, parsed.case)
        judged = yield from judge_case(service, case)
        answer = service.scorer.answer(judged, case.history, service.scorer.languages.catalogue(language))
        return sent_answer(answer, parsed.render(answer), case)

    return await run_in_pool(request, work(), deadline)


async def run_in_pool(request: Request, work: SteppedTask[Read], deadline: float) -> Read:
    """Run ``work`` on a thread of the pool.

    Raises:
        RequestError: it was not done by ``deadline``.
    """
    return await within_deadline(request, service_of(request).pool.run(work), deadline)


async def within_deadline(request: Request, awaitable: Awaitable[Read], deadline: float) -> Read:
    """The result of ``awaitable``, if it comes by ``deadline``.

    Raises:
        RequestError: it does not.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await awaitable
    except TimeoutError:
        raise RequestError(
            "not_answered_in_time",
            headers={"Retry-After": "5"},
            seconds=service_of(request).settings.answer_timeout_s,
        ) from None


def answer_deadline(request: Request) -> float:
    """When a case that has just arrived must be answered, by the event loop's clock."""
    return asyncio.get_running_loop().time() + service_of(request).settings.answer_timeout_s


async def record_answer(
    request: Request, result: SentAnswer, audit_fields: Mapping[str, object]
) -> ChainEnd | None:
    """Record the answer, then count and shadow it. Only now may it be sent, enqueued or remembered.

    Args:
        request: that brought the case.
        result: its answer.
        audit_fields: of the audit log.

    Returns:
        Number and hash of its line; None if there is no log.

    Raises:
        RequestError: the log cannot be written.
    """
    service = service_of(request)
    end = await record_event(
        request, "repeat" if result.repeated else "answer", {**audit_fields, **result.fields}
    )
    if result.repeated:
        service.telemetry.count_repeat()
    else:
        service.telemetry.count_answer(result.disposition, result.priority_band, result.codes)
    service.shadows.enqueue(
        service.recorder, result, request.state.request_id, request.state.caller.name, end
    )
    return end


def remember_answer(
    request: Request, result: SentAnswer, audit_fields: Mapping[str, object], idempotency_key: str | None
) -> None:
    """Keep a recorded answer for the same case under the same key."""
    if idempotency_key is not None:
        service_of(request).idempotency_cache.keep(
            request.state.caller.name, idempotency_key, audit_fields, result
        )


async def record_event(request: Request, event: str, fields: Mapping[str, object]) -> ChainEnd | None:
    """Write a line about this request to the audit log, and refer to it in the request log.

    Returns:
        Number and hash of the line; None if there is no audit log.

    Raises:
        RequestError: the log cannot be written.
    """
    state = request.state
    end = await service_of(request).recorder.write(event, state.request_id, state.caller.name, fields)
    if end is not None:
        state.audit = f"{end.sequence}:{end.head[:16]}"
    return end


def extract_photographs(service: Service, case: SentCase) -> SentCase:
    """The case with each DICOM file replaced by the photograph in it. Runs on a thread of the pool.

    Raises:
        RequestError: a DICOM file is damaged or of a kind that is not read.
    """
    spec = service.bundle.header.pixels
    images = [dicom.photograph(data, spec, index) for index, data in enumerate(case.images)]
    return replace(case, images=images)


def judge_case(service: Service, case: SentCase) -> SteppedTask[CaseDecision]:
    """Score a case that has no DICOM files any more. Runs on a thread of the pool.

    Raises:
        RequestError: a photograph cannot be used, or the model's output is not a finite number.
    """
    try:
        return (
            yield from service.scorer.decide_case_stepwise(
                case.images, case.history, service.pool.idle_executor()
            )
        )
    except ImageError as error:
        raise RequestError(error.code, index=error.index) from None
    except ScoringError:
        raise RequestError("not_scored") from None
