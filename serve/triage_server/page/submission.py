"""A case sent through the page: stripped of metadata, scored as any other, recorded, and queued.

Imports the bundle, the modules of the server and the page's context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from fastapi import Request

from lesion_triage.bundle.interleaving import SteppedTask
from lesion_triage.bundle.metadata_stripping import strip_metadata
from lesion_triage.bundle.schema import Answer
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from lesion_triage.errors import ImageError
from triage_server.case_pipeline import (
    answer_deadline,
    extract_photographs,
    judge_case,
    record_answer,
    recording_refusals,
    run_in_pool,
    within_deadline,
)
from triage_server.dicom import DICOM_TYPE, available
from triage_server.intake import SentCase
from triage_server.page.context import Page, RequestContext, context_of
from triage_server.page.forms import Form
from triage_server.page.history import NUMBER_RANGES, parse_history, questions_for
from triage_server.page.store import parse_number
from triage_server.pool import ScoringPool
from triage_server.problems import RequestError
from triage_server.record import SentAnswer, sent_answer
from triage_server.service import Service, language_of, service_of
from triage_server.v1 import answer_json

_POLL_INTERVAL_S = 0.02
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
_FIELD_BY_ERROR = {"earlier_case_not_found": "earlier_case"}


def accepted_types() -> tuple[str, ...]:
    """Media types of photographs, and file extensions, because browsers may know no type for DICOM."""
    return (*_IMAGE_TYPES, DICOM_TYPE, ".dcm") if available() else _IMAGE_TYPES


async def draw_number(page: Page, request: Request) -> str:
    """A number for a case that could be recorded and stored now.

    Raises:
        RequestError: it could not.
    """
    await service_of(request).recorder.require_writable()
    return await page.run_in_thread(page.queue.draw_number)


async def submit_case(page: Page, request: Request) -> str:
    """Score the case in a request and queue it.

    Returns:
        The case's number.

    Raises:
        RequestError: nothing was stored.
    """
    service = service_of(request)
    line: dict[str, object] = {"face": "page"}
    async with recording_refusals(request, line):
        # No place is held during a database call: a database that hangs would take all places from the
        # platforms. The bytes of the photographs are counted for as long as they are in memory.
        number = await draw_number(page, request)
        with ExitStack() as resources:
            counted_bytes = resources.enter_context(service.pool.count_bytes())
            with service.pool.reserve_slot():
                form = await page.read_form(
                    request, service.settings.max_body_bytes, counted_bytes.reserve_bytes
                )
            case = SentCase(form.images, parse_history(form, questions_for(service.bundle)))
            if not form.images:
                raise RequestError("no_image")
            if len(form.images) > MAX_IMAGES_PER_CASE:
                raise RequestError("too_many_images")

            def release() -> None:
                del form.images[:]
                counted_bytes.release_bytes()

            async def work() -> str:
                with resources.pop_all():  # a second click may wait for the result after the first has gone
                    return await _score_and_store(page, request, number, form, case, line)

            return await page.submit_once(request, form, work, release)


async def _score_and_store(
    page: Page, request: Request, number: str, form: Form, case: SentCase, line: dict[str, object]
) -> str:
    pool = service_of(request).pool
    earlier = await _earlier_number(page, form)
    deadline = answer_deadline(request)
    await within_deadline(request, _wait_for_place(pool), deadline)
    with pool.reserve_slot():
        scored = await _score(request, case, line, deadline)
        line["case_hmac"] = page.case_hash(number)
        await record_answer(request, scored.answered, line)
    request.state.disposition = scored.answered.disposition
    caller = context_of(request).caller.name
    await page.run_in_thread(
        lambda: page.queue.add(number, scored.answers, scored.photographs, case.history, caller, earlier)
    )
    return number


async def _wait_for_place(pool: ScoringPool) -> None:
    """Wait for a place: a sender whose whole case has arrived is not told to send it again."""
    while pool.cases >= pool.capacity:
        await asyncio.sleep(_POLL_INTERVAL_S)


async def _earlier_number(page: Page, form: Form) -> str | None:
    if not (typed := form.get("earlier_case")):
        return None
    number = parse_number(typed)
    if await page.run_in_thread(lambda: page.queue.find_or_none(number)) is None:
        raise RequestError("earlier_case_not_found")
    return number


@dataclass(frozen=True)
class _ScoredCase:
    """A scored case on its way into the queue."""

    photographs: list[bytes]
    """Its photographs, stripped. Exactly these were scored, so they can be scored again."""
    answers: tuple[Answer, ...]
    """The answer in every language, the sender's first."""
    answered: SentAnswer


async def _score(request: Request, sent: SentCase, line: dict[str, object], deadline: float) -> _ScoredCase:
    service, first = service_of(request), language_of(request)
    languages = service.scorer.languages

    def work() -> SteppedTask[_ScoredCase]:
        case = _strip_images(service, extract_photographs(service, sent))
        line.update(service.recorder.input_hashes(case))
        judged = yield from judge_case(service, case)
        answers = tuple(
            service.scorer.answer(judged, case.history, languages.catalogue(name))
            for name in (first, *(name for name in languages.names if name != first))
        )
        return _ScoredCase(case.images, answers, sent_answer(answers[0], answer_json(answers[0]), case))

    return await run_in_pool(request, work(), deadline)


def _strip_images(service: Service, case: SentCase) -> SentCase:
    spec, photographs = service.bundle.header.pixels, []
    for index, image in enumerate(case.images):
        try:
            photographs.append(strip_metadata(image, spec))
        except ImageError as error:
            raise RequestError(error.code, index=index) from None
    return replace(case, images=photographs)


def form_error(refusal: RequestError, context: RequestContext) -> tuple[str, str]:
    """The field at fault, and what to do about it."""
    invalid = invalid_fields(refusal)
    named = [context.texts(f"question.{name}") for name in invalid if name not in NUMBER_RANGES]
    messages = list(_range_messages(invalid, context))  # which names the numbers at fault itself
    if named or not messages:
        number = (refusal.index or 0) + 1
        messages.insert(0, context.texts.problem(refusal.code, number=number, fields=" · ".join(named)))
    if refusal.code != "no_image":
        messages.append(context.texts("new.again"))
    return invalid[0] if invalid else _FIELD_BY_ERROR.get(refusal.code, "image"), " ".join(messages)


def invalid_fields(refusal: RequestError | None) -> list[str]:
    """The fields of the history that are invalid."""
    fields = "" if refusal is None else str(refusal.placeholders.get("fields", ""))
    return [name for name in fields.split(", ") if name]


def _range_messages(fields: list[str], context: RequestContext) -> Iterator[str]:
    """For each number among the fields at fault, the sentence with its range."""
    for name in fields:
        if name in NUMBER_RANGES:
            least, most = map(context.texts.compact_number, NUMBER_RANGES[name])
            yield context.texts(
                "problem.number", field=context.texts(f"question.{name}"), least=least, most=most
            )
