"""A case sent through the page: stripped of metadata, scored as any other, recorded, and queued.

Imports the bundle, the modules of the server and the page's context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from fastapi import Request

from lesion_triage.bundle.in_step import Steps
from lesion_triage.bundle.schema import Answer
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from lesion_triage.bundle.stripping import strip
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
from triage_server.page.context import Page, Visit, visit_of
from triage_server.page.forms import Sent
from triage_server.page.history import RANGES, history_of, questions
from triage_server.pool import ScoringPool
from triage_server.problems import RequestError
from triage_server.record import Answered, answered
from triage_server.service import Service, language_of, service_of
from triage_server.v1 import answer_json

__all__ = ["MAX_IMAGES_PER_CASE", "ON_THE_FORM", "Arriving", "at_fault", "explained", "take_in"]

ON_THE_FORM = frozenset(
    {
        "no_image",
        "too_many_images",
        "image_empty",
        "image_too_large",
        "image_format_not_supported",
        "image_animated",
        "image_not_decodable",
        "image_not_storable",
        "dicom_not_valid",
        "dicom_not_supported",
        "dicom_not_available",
        "history_not_valid",
        "earlier_case_not_found",
    }
)
"""Refusals that the sender can fix in the form."""
_LOOK_EVERY_S = 0.02
_PICTURES = ("image/jpeg", "image/png", "image/webp")
_FIELD = {"earlier_case_not_found": "earlier_case"}


@dataclass
class Arriving:
    """What is known of a case on its way in, for the form and for the log."""

    sent: Sent = field(default_factory=Sent)
    line: dict[str, object] = field(default_factory=lambda: {"face": "page"})


def kinds() -> tuple[str, ...]:
    """Media types of photographs, and file extensions, because browsers may know no type for DICOM."""
    return (*_PICTURES, DICOM_TYPE, ".dcm") if available() else _PICTURES


async def take_in(page: Page, request: Request, arriving: Arriving) -> str:
    """Score the case in a request and queue it.

    Returns:
        The case's number.

    Raises:
        RequestError: nothing was stored.
    """
    service, line = service_of(request), arriving.line
    async with recording_refusals(request, line):
        await service.recorder.require()
        # No place is held during a database call: a database that hangs would take all places from the
        # platforms. The bytes of the photographs are counted for as long as they are in memory.
        number = await page.run_in_thread(page.queue.draw_number)
        with ExitStack() as here:
            held = here.enter_context(service.pool.counted())
            with service.pool.place():
                arriving.sent = sent = await page.form(request, service.settings.max_body_bytes, held.take)
            case = SentCase(sent.images, history_of(sent, questions(service.bundle)))
            if not sent.images:
                raise RequestError("no_image")

            def let_go() -> None:
                del sent.images[:]
                held.give_back()

            async def work() -> str:
                with here.pop_all():  # a second click may wait for the result after the first has gone
                    return await _keep(page, request, number, sent, case, line)

            return await page.once(request, sent, work, let_go)


async def _keep(
    page: Page, request: Request, number: str, sent: Sent, case: SentCase, line: dict[str, object]
) -> str:
    pool = service_of(request).pool
    earlier = await _earlier(page, sent)
    deadline = answer_deadline(request)
    await within_deadline(request, _room(pool), deadline)
    with pool.place():
        scored = await _scored(request, case, line, deadline)
        line["case_hmac"] = page.case_hash(number)
        await record_answer(request, scored.found, line)
    request.state.disposition = scored.found.disposition
    caller = visit_of(request).caller.name
    await page.run_in_thread(
        lambda: page.queue.add(number, scored.answers, scored.kept, case.history, caller, earlier)
    )
    return number


async def _room(pool: ScoringPool) -> None:
    """Wait for a place: a sender whose whole case has arrived is not told to send it again."""
    while pool.cases >= pool.capacity:
        await asyncio.sleep(_LOOK_EVERY_S)


async def _earlier(page: Page, sent: Sent) -> str | None:
    number = sent.get("earlier_case").upper()
    if not number:
        return None
    try:
        return (await page.run_in_thread(lambda: page.queue.find(number))).number
    except RequestError as refusal:
        if refusal.code == "not_found":
            raise RequestError("earlier_case_not_found") from None
        raise


@dataclass(frozen=True)
class _Scored:
    """A scored case on its way into the queue."""

    kept: list[bytes]
    """Its photographs, stripped. Exactly these were scored, so they can be scored again."""
    answers: tuple[Answer, ...]
    """The answer in every language, the sender's first."""
    found: Answered


async def _scored(request: Request, sent: SentCase, line: dict[str, object], deadline: float) -> _Scored:
    service, first = service_of(request), language_of(request)
    languages = service.scorer.languages

    def work() -> Steps[_Scored]:
        case = _stripped(service, extract_photographs(service, sent))
        line.update(service.recorder.inputs(case))
        judged = yield from judge_case(service, case)
        answers = tuple(
            service.scorer.answer(judged, case.history, languages.catalogue(name))
            for name in (first, *(name for name in languages.names if name != first))
        )
        return _Scored(case.images, answers, answered(answers[0], answer_json(answers[0]), case))

    return await run_in_pool(request, work(), deadline)


def _stripped(service: Service, case: SentCase) -> SentCase:
    spec, kept = service.bundle.header.pixels, []
    for index, image in enumerate(case.images):
        try:
            kept.append(strip(image, spec))
        except ImageError as error:
            raise RequestError(error.code, index=index) from None
    return replace(case, images=kept)


def explained(refusal: RequestError, visit: Visit) -> tuple[str, str]:
    """The field at fault, and what to do about it."""
    wrong = at_fault(refusal)
    named = [visit.texts(f"question.{name}") for name in wrong if name not in RANGES]
    said = list(_ranges(wrong, visit))  # which names the numbers at fault itself
    if named or not said:
        number = (refusal.index or 0) + 1
        said.insert(0, visit.texts.problem(refusal.code, number=number, fields=" · ".join(named)))
    if refusal.code != "no_image":
        said.append(visit.texts("new.again"))
    return wrong[0] if wrong else _FIELD.get(refusal.code, "image"), " ".join(said)


def at_fault(refusal: RequestError | None) -> list[str]:
    """The fields of the history that are invalid."""
    fields = "" if refusal is None else str(refusal.placeholders.get("fields", ""))
    return [name for name in fields.split(", ") if name]


def _ranges(fields: list[str], visit: Visit) -> Iterator[str]:
    """For each number among the fields at fault, the sentence with its range."""
    for name in fields:
        if name in RANGES:
            least, most = map(visit.texts.plain, RANGES[name])
            yield visit.texts("problem.number", field=visit.texts(f"question.{name}"), least=least, most=most)
