"""A case that comes by the page: stripped, scored as any other, recorded, and put into the queue.

Imports the bundle, the rooms of the server and the page's desk.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastapi import Request

from lesion_triage.bundle.history import History
from lesion_triage.bundle.schema import Answer
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from lesion_triage.bundle.stripping import strip
from lesion_triage.errors import ImageError, ScoringError
from triage_server.intake import SentCase
from triage_server.page.desk import Page, Visit, beside, visit_of
from triage_server.page.forms import Sent
from triage_server.page.history import history_of
from triage_server.record import answered
from triage_server.wire import RequestError

__all__ = ["MAX_IMAGES_PER_CASE", "ON_THE_FORM", "Arriving", "explained", "take_in"]

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
        "history_not_valid",
        "earlier_case_not_found",
    }
)
"""Refusals that whoever filled the form in can mend there."""
_FIELD = {"history_not_valid": "history", "earlier_case_not_found": "earlier_case"}


@dataclass
class Arriving:
    """What is known of a case while it comes, for the form and for the log."""

    sent: Sent = field(default_factory=Sent)
    line: dict[str, object] = field(default_factory=dict)


async def take_in(page: Page, request: Request, arriving: Arriving) -> str:
    """Score the case that a request brings and keep it.

    Returns:
        Its number.

    Raises:
        RequestError: nothing was kept.
    """
    service, visit = page.service, visit_of(request)
    with service.pool.place() as place:
        arriving.sent = sent = await page.form(request, service.settings.max_body_bytes, place.take)
        history = history_of(sent, page.questions)
        if not sent.images:
            raise RequestError("no_image")
        earlier = await _earlier(page, sent)
        kept, answers = await _scored(page, visit, sent.images, history, arriving.line)
        said = answered(answers[0])
        number = await beside(page.queue.draw_number)
        line = {**arriving.line, **said.fields, "case_hmac": page.case_hash(number)}
        await page.record(request, "answer", line)
        caller = visit.caller.name
        await beside(lambda: page.queue.add(number, answers, kept, history, caller, earlier))
    request.state.disposition = said.disposition
    service.telemetry.answer(said.disposition, said.priority_band, said.codes)
    return number


async def _earlier(page: Page, sent: Sent) -> str | None:
    number = sent.get("earlier_case").upper()
    if not number:
        return None
    try:
        return (await beside(lambda: page.queue.find(number))).number
    except RequestError as refusal:
        if refusal.code == "not_found":
            raise RequestError("earlier_case_not_found") from None
        raise


async def _scored(
    page: Page, visit: Visit, images: list[bytes], history: History, line: dict[str, object]
) -> tuple[list[bytes], tuple[Answer, ...]]:
    """The photographs as they are kept, and the answer in every language, the reader's first.

    What is scored is what is kept, so that it can be scored again.
    """
    service = page.service
    first = visit.catalogue.language
    languages = [first, *(name for name in service.scorer.languages.names if name != first)]

    def work() -> tuple[list[bytes], tuple[Answer, ...]]:
        try:
            kept = [_stripped(page, index, image) for index, image in enumerate(images)]
            line.update(service.recorder.inputs(SentCase(kept, history)))
            return kept, service.scorer.answers(kept, history, languages)
        except ImageError as error:
            raise RequestError(error.code, index=error.index) from None
        except ScoringError:
            raise RequestError("not_scored") from None

    seconds = service.settings.answer_timeout_s
    try:
        async with asyncio.timeout(seconds):
            return await service.pool.run(work)
    except TimeoutError:
        raise RequestError("not_answered_in_time", headers={"Retry-After": "5"}, seconds=seconds) from None


def _stripped(page: Page, index: int, image: bytes) -> bytes:
    try:
        return strip(image, page.service.bundle.header.pixels)
    except ImageError as error:
        raise ImageError(error.code, str(error), index=index) from None


def explained(refusal: RequestError, visit: Visit) -> tuple[str, str]:
    """The field at fault and what to do about it."""
    named = [
        visit.catalogue.history.get(name, name) for name in str(refusal.words.get("fields", "")).split(", ")
    ]
    number = (refusal.index or 0) + 1
    text = visit.texts.problem(refusal.code, number=number, fields=", ".join(named))
    return _FIELD.get(refusal.code, "image"), text
