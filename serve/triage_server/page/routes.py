"""The paths below /ui except sign-in and sign-out, one function each. Imports FastAPI and the page's modules.

Looking is GET and changes nothing. Everything else is POST, carries the session's token, and is in the audit
log before it is done.
"""

from __future__ import annotations

import math
import mimetypes
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import cast, get_args

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from lesion_triage.bundle.messages import NotePhrase
from lesion_triage.bundle.schema import Policy
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server.case_pipeline import record_event
from triage_server.page import certificate_view, export, sign_in, submission
from triage_server.page.context import Page, context_of, form_to_show_again, page_of
from triage_server.page.forms import MAX_SHORT_FORM_BYTES, Form
from triage_server.page.history import questions_for
from triage_server.page.open_cases import Opened
from triage_server.page.records import ConfirmedBy, Decision, QueuedCase, WaitingCase
from triage_server.page.route import PageRoute, page_router, redirect, respond
from triage_server.page.store import CASE_NUMBER
from triage_server.problems import RequestError
from triage_server.service import service_of

_REASON_LENGTHS = range(3, 2001)
_ANY_PATH = "/{rest:path}"
_CONFIRMABLE_ACTIONS = ("sent", "reading", "outcome", "deleted")

router = page_router()


_ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]


def install(app: FastAPI, page: Page, not_routed: _ErrorHandler) -> None:
    """Add the page and its paths to the application.

    Args:
        app: gets them.
        page: answers them.
        not_routed: refuses a method that a path outside the page does not have.
    """
    app.state.page = page
    app.include_router(sign_in.router)
    app.include_router(router)  # its last path matches anything

    async def refuse(request: Request, error: Exception) -> Response:
        is_below = f"{request.scope['path']}/".startswith(f"{page.path}/")
        return await (respond(request, None, not_found) if is_below else not_routed(request, error))

    app.add_exception_handler(HTTPException, refuse)


@router.get("/static/{name}")
async def static(request: Request) -> Response:
    """Style sheet and script, from memory."""
    name = request.path_params["name"]
    content = page_of(request).static_files.get(name)
    if content is None:
        raise RequestError("not_found")
    return Response(content, media_type=mimetypes.guess_type(name)[0])


@router.get("")
async def queue(request: Request) -> Response:
    """The unread cases, in reading order."""
    page = page_of(request)
    list_page, pulse = await page.run_in_thread(lambda: page.queue.waiting_cases(_page_number(request)))
    return page.render(
        request,
        "queue.html",
        list_page=list_page,
        deadlines=_deadline_texts(list_page.cases, service_of(request).bundle.policy),
        opened={case.number: _opened_by_others(request, case.number) for case in list_page.cases},
        pulse=pulse,
        done=await _confirmed_action(request),
    )


@router.get("/pulse")
async def pulse(request: Request) -> Response:
    """The queue's fingerprint, for the script: it changes with the order, and when a deadline passes."""
    page = page_of(request)
    return Response(await page.run_in_thread(page.queue.pulse), media_type="text/plain")


@router.get("/session")
async def session(request: Request) -> Response:
    """Whose session this is now, and the token of its forms: for the script, before it sends a long form.

    With ``case`` in the query, refused as a case would be before its form is read.
    Other sites cannot read it, as they cannot read the token in a page: the cookie is strict, and no header
    lets another origin in.
    """
    page, context = page_of(request), context_of(request)
    if "case" in request.query_params:
        await submission.draw_number(page, request)
        service_of(request).pool.refuse_if_full()
    assert context.session is not None
    token = page.sessions.csrf_token(context.session)
    return JSONResponse({"reader": context.actor.reader, "form_token": token})


@router.get("/new")
async def new(request: Request) -> Response:
    """The form for a case; with ``earlier_case`` in the query, for one of the same person.

    No answer is taken over: each is to be asked again.
    """
    earlier = request.query_params.get("earlier_case", "")
    return _render_form(request, Form({"earlier_case": earlier} if CASE_NUMBER.fullmatch(earlier) else {}))


@router.post("/cases")
async def send(request: Request) -> Response:
    """Score a case and put it into the queue."""
    try:
        number = await submission.submit_case(page_of(request), request)
    except RequestError as refusal:
        form = form_to_show_again(request)
        if not form.fields:
            raise
        request.state.problem = refusal.code
        return _render_form(request, form, refusal)
    return redirect("/ui", done="sent", case=number)


@router.get("/cases/{number}")
async def case(request: Request) -> Response:
    """One case, with everything recorded about it."""
    response = await _render_case(request)
    page = page_of(request)
    page.open_cases.note(_case_number(request), context_of(request).actor, page.queue.now())
    return response


@router.get("/cases/{number}/photographs/{position}")
async def photograph(request: Request) -> Response:
    """One photograph as stored."""
    page, number = page_of(request), request.path_params["number"]
    position = request.path_params["position"]
    if not (position.isascii() and position.isdecimal() and len(position) <= 2):
        raise RequestError("not_found")
    kind, data = await page.run_in_thread(lambda: page.queue.photograph(number, int(position)))
    name = export.photograph_name(number, int(position), kind)
    return Response(data, media_type=kind, headers={"Content-Disposition": f'inline; filename="{name}"'})


@router.post("/cases/{number}/reading")
async def reading(request: Request) -> Response:
    """Record a reading."""
    page, context = page_of(request), context_of(request)
    form, number = await page.read_form(request), _case_number(request)
    decision, reason = form.get("decision"), _clean_text(form.get("reason"))
    if decision not in get_args(Decision):
        return await _render_case(request, ("decision-agree", context.texts("reading.which")), form)
    if (decision == "override" or reason) and len(reason) not in _REASON_LENGTHS:
        why = context.texts("reading.why" if decision == "override" else "reading.length")
        return await _render_case(request, ("reason", why), form)
    chosen = cast("Decision", decision)

    async def work() -> str:
        async with page.case_locks.lock(number):
            found = await page.run_in_thread(lambda: page.queue.find(number))
            seen = len(found.readings)
            if form.get("readings") != str(seen):
                raise RequestError("read_meanwhile")
            line = {"case_hmac": page.case_hash(number), "decision": chosen}
            async with _recorded(request, "reading", line):
                await page.run_in_thread(
                    lambda: page.queue.record_reading(number, context.actor, chosen, reason, seen)
                )
        return number

    try:
        done = await page.submit_once(request, form, work)
    except RequestError as refusal:
        return await _render_changed_case(request, form, refusal, "readings")
    return redirect("/ui", done="reading", case=done)


@router.post("/cases/{number}/outcome")
async def outcome(request: Request) -> Response:
    """Record an outcome."""
    page, context = page_of(request), context_of(request)
    form, number = await page.read_form(request), _case_number(request)
    values: dict[str, bool | None] = {"true": True, "false": False, "unknown": None}
    needs, how = form.get("needs_in_person"), form.get("confirmed_by")
    known = values.get(needs) is not None
    if needs not in values or how not in get_args(ConfirmedBy) or known == (how == "not_yet"):
        return await _render_case(request, ("outcome-true", context.texts("outcome.which")), form)
    confirmed_by = cast("ConfirmedBy", how)

    async def work() -> str:
        line = {"case_hmac": page.case_hash(number), "needs_in_person": values[needs], "confirmed_by": how}
        async with page.case_locks.lock(number):
            found = await _find_read(page, number)
            seen = len(found.outcomes)
            if form.get("outcomes") != str(seen):
                raise RequestError("outcome_meanwhile")
            async with _recorded(request, "outcome", line):
                await page.run_in_thread(
                    lambda: page.queue.record_outcome(
                        number, context.actor, values[needs], confirmed_by, seen
                    )
                )
        return number

    try:
        done = await page.submit_once(request, form, work)
    except RequestError as refusal:
        return await _render_changed_case(request, form, refusal, "outcomes")
    return redirect("/ui/read", done="outcome", case=done)


@router.post("/cases/{number}/delete")
async def delete(request: Request) -> Response:
    """Delete a case that was read."""
    page, context = page_of(request), context_of(request)
    form, number = await page.read_form(request), _case_number(request)
    if form.get("sure") != "yes":
        await _find_read(page, number)
        return await _render_case(request, ("sure", context.texts("delete.which")), form)

    async def work() -> str:
        line = {"case_hmac": page.case_hash(number), "why": "reader"}
        async with page.case_locks.lock(number):
            found = await _find_read(page, number)
            seen = len(found.readings) + len(found.outcomes)
            if form.get("records") != str(seen):
                raise RequestError("read_meanwhile")
            async with _recorded(request, "deletion", line):
                await page.run_in_thread(lambda: page.queue.delete(number, seen))
        return number

    try:
        done = await page.submit_once(request, form, work)
    except RequestError as refusal:
        return await _render_changed_case(request, form, refusal, "sure", context.texts("delete.meanwhile"))
    return redirect("/ui/read", done="deleted", case=done)


@router.get("/read")
async def read(request: Request) -> Response:
    """The read cases."""
    page = page_of(request)
    list_page = await page.run_in_thread(lambda: page.queue.read_cases(_page_number(request)))
    return page.render(
        request,
        "read.html",
        list_page=list_page,
        counts=await page.run_in_thread(page.queue.known_outcomes),
        drawn_counts=await page.run_in_thread(page.queue.drawn_outcomes),
        done=await _confirmed_action(request),
    )


@router.post("/export")
async def exported(request: Request) -> Response:
    """Outcomes and their photographs as a ZIP file, in the format that the clinic's commands read."""
    page = page_of(request)
    await page.read_form(request)
    sizes = await page.run_in_thread(page.queue.read_cases_with_sizes)
    await record_event(request, "export", {"cases": len(sizes)})
    name = f"outcomes-{page.queue.now():%Y-%m-%d}.zip"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_zip_stream(page, sizes), headers=headers, media_type="application/zip")


async def _zip_stream(page: Page, sizes: Sequence[tuple[str, int]]) -> AsyncIterator[bytes]:
    steps = export.zip_chunks(page.queue, sizes)
    while (piece := await page.run_in_thread(lambda: next(steps, None))) is not None:
        yield piece


@router.get("/cases")
async def new_again(request: Request) -> Response:
    """The address of a refused form, opened again: a browser that was restarted asks for it with GET."""
    return redirect("/ui/new")


@router.get("/cases/{number}/reading")
@router.get("/cases/{number}/outcome")
@router.get("/cases/{number}/delete")
async def case_again(request: Request) -> Response:
    """The same for the forms of a case."""
    return redirect(f"/ui/cases/{_case_number(request)}")


@router.get("/certificate")
async def certificate(request: Request) -> Response:
    """What the certificate promises, and what it does not."""
    page = page_of(request)
    bundle = service_of(request).bundle
    issued, view = bundle.certificate, certificate_view.build_view(bundle.certificate, bundle.policy)
    return page.render(request, "certificate.html", certificate=issued, view=view)


@router.get(_ANY_PATH)
async def not_found(request: Request) -> Response:
    """Any other path, or another method of one."""
    path = request.scope["path"]
    if allowed := _allowed_methods(path):
        raise RequestError("method_not_allowed", headers={"Allow": allowed}, allowed=allowed)
    if path == "/ui/":
        return redirect("/ui")
    raise RequestError("not_found")


def _allowed_methods(path: str) -> str:
    """The methods of a path, as ``Allow`` names them; empty if there is no such path."""
    routes = [route for route in (*sign_in.router.routes, *router.routes) if isinstance(route, PageRoute)]
    matching = [one for one in routes if one.path != f"/ui{_ANY_PATH}" and one.path_regex.match(path)]
    return ", ".join(sorted({method for route in matching for method in route.methods or ()}))


def _render_form(request: Request, form: Form, refusal: RequestError | None = None) -> Response:
    page, context = page_of(request), context_of(request)
    error = None if refusal is None else submission.form_error(refusal, context)
    # Rounded down, with room for all but the photographs: a longer form is refused unread, and so lost.
    room_bytes = service_of(request).settings.max_body_bytes - MAX_SHORT_FORM_BYTES
    limit_mb = max(0.0, math.floor(room_bytes / 1e5) / 10)
    status = HTTPStatus.OK if refusal is None else refusal.problem_type.status
    response = page.render(
        request,
        "new.html",
        status,
        questions=questions_for(service_of(request).bundle),
        form=form,
        error=error,
        error_title="problem.title" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "error.title",
        invalid_fields=submission.invalid_fields(refusal),
        max_images=MAX_IMAGES_PER_CASE,
        accepted_types=",".join(submission.accepted_types()),
        limit_mb=limit_mb,
    )
    response.headers.update({} if refusal is None else refusal.headers)
    return response


async def _render_case(
    request: Request,
    error: tuple[str, str] | None = None,
    form: Form | None = None,
    status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY,
) -> Response:
    page, context = page_of(request), context_of(request)
    number = _case_number(request)
    found, newer, older = await page.run_in_thread(lambda: page.queue.find_with_others(number))
    return page.render(
        request,
        "case.html",
        HTTPStatus.OK if error is None else status,
        case=found,
        newer=newer,
        older=older,
        opened=() if found.is_read else _opened_by_others(request, number),
        answer=found.answer(context.catalogue.language),
        unreviewed=_has_unreviewed_flags(request, found),
        keep_days=service_of(request).settings.reading_queue_keep_days,
        keeps_log=service_of(request).recorder.has_log,
        confirmations=get_args(ConfirmedBy),
        error=error,
        form=form or Form(),
    )


def _opened_by_others(request: Request, number: str) -> tuple[Opened, ...]:
    page = page_of(request)
    return page.open_cases.by_others(number, context_of(request).actor, page.queue.now())


async def _render_changed_case(
    request: Request, form: Form, refusal: RequestError, place: str, text: str | None = None
) -> Response:
    """The case as it is now, for a form that was filled in before somebody else recorded something.

    ``place`` is the id that the refusal points at. Any other refusal is raised again.
    """
    if refusal.code not in ("read_meanwhile", "outcome_meanwhile"):
        raise refusal
    request.state.problem = refusal.code
    error = (place, text or context_of(request).texts.problem(refusal.code))
    return await _render_case(request, error, form, HTTPStatus.CONFLICT)


def _deadline_texts(cases: Sequence[WaitingCase], policy: Policy) -> tuple[str, ...]:
    """Sentences about deadlines, by those of the cases shown, which another bundle may have set."""
    found = {case.urgency.due_at is not None for case in cases} or {policy.deadline_hours is not None}
    return tuple(said for said, so in (("queue.deadline", True), ("queue.no_deadline", False)) if so in found)


def _has_unreviewed_flags(request: Request, case: QueuedCase) -> bool:
    """Whether the red-flag rules of the bundle that answered the case have no named reviewer."""
    service, answers = service_of(request), case.answers or {}
    if any(answer.bundle_sha256 == service.bundle.sha256 for answer in answers.values()):
        rules = service.bundle.policy.red_flags
        return bool(rules.flags) and not rules.reviewed_by
    # The note in an answer of an earlier bundle says so itself.
    known = service.scorer.languages
    return any(
        known.catalogue(language).note[NotePhrase.flags_not_reviewed] in answer.note
        for language, answer in answers.items()
        if language in known.names
    )


def _case_number(request: Request) -> str:
    return cast("str", request.path_params["number"])


@asynccontextmanager
async def _recorded(request: Request, event: str, line: Mapping[str, object]) -> AsyncIterator[None]:
    """Record a change in the audit log before it is made, and if it then fails, that it was not made."""
    await record_event(request, event, line)
    try:
        yield
    except BaseException:
        await record_event(request, f"{event}_failed", line)
        raise


async def _find_read(page: Page, number: str) -> QueuedCase:
    found = await page.run_in_thread(lambda: page.queue.find(number))
    if not found.is_read:
        raise RequestError("not_read_yet")
    return found


async def _confirmed_action(request: Request) -> tuple[str, str] | None:
    """What was just done, if the queue confirms it: anyone can type a URL or go back to one."""
    page, number = page_of(request), request.query_params.get("case", "")
    done = request.query_params.get("done", "")
    if done not in _CONFIRMABLE_ACTIONS or not CASE_NUMBER.fullmatch(number):
        return None
    found = await page.run_in_thread(lambda: page.queue.find_or_none(number))
    if found is None:
        return (done, number) if done == "deleted" else None
    confirmed = {"sent": True, "reading": found.is_read, "outcome": bool(found.outcomes), "deleted": False}
    if not confirmed[done]:
        return None
    return ("sent_and_read" if done == "sent" and found.is_read else done, number)


def _page_number(request: Request) -> int:
    """The requested page of a list; the first, if the number is invalid."""
    asked = request.query_params.get("part", "")
    return int(asked) if asked.isascii() and asked.isdecimal() and len(asked) <= 6 else 1


def _clean_text(text: str) -> str:
    """Text without control characters and with one kind of line end, as database and page can hold it."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    # A no-break space, as text processors write it, is not dropped: 2 and 3 would become 23.
    spaced = re.sub(r"[^\S\n\t]", " ", lines)
    return "".join(letter for letter in spaced if letter.isprintable() or letter in "\n\t").strip()
