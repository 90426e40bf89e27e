"""Several cases in one request, each answered, refused, recorded and counted on its own.

Imports the case pipeline and ``v1``, whose form of a case it uses.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import ExitStack
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from lesion_triage.bundle.document import Document
from lesion_triage.bundle.interleaving import single_step
from lesion_triage.bundle.schema import Answer
from triage_server import json_body, v1
from triage_server.case_pipeline import (
    admit,
    answer_deadline,
    idempotency_lock,
    read_json_body,
    receive_in_time,
    record_answer,
    recording_refusals,
    remember_answer,
    run_in_pool,
    score_case,
)
from triage_server.examples import ANSWERS, HISTORY, PICTURE
from triage_server.intake import parse_idempotency_key
from triage_server.openapi import BATCH_CODES, describe_case_operation
from triage_server.problems import Problem, RequestError
from triage_server.security import ANONYMOUS
from triage_server.service import language_headers, language_of, service_of
from triage_server.wire import JSON_TYPE, MAX_CASES_PER_BATCH

router = APIRouter()
log = logging.getLogger("triage_server")

_NAME = "batch"


class Batch(Document):
    """Several cases."""

    cases: list[Any]


class BatchItem(Document):
    """Result of one case: either an answer or a problem."""

    index: int = Field(ge=0)
    """Position in the request, from 0."""
    answer: Answer | None
    problem: Problem | None
    audit_hash: str | None
    """Hash of the answer's line in the audit log; null without an answer or without a log."""


class BatchAnswer(Document):
    """One item for each case, in the order sent."""

    cases: tuple[BatchItem, ...]


_PATH = "/v1/triage/batch"
SCHEMAS = {
    "Batch": {
        "title": "Batch",
        "type": "object",
        "required": ["cases"],
        "additionalProperties": False,
        "properties": {
            "cases": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/JsonCase"},
                "minItems": 1,
                "maxItems": MAX_CASES_PER_BATCH,
            }
        },
    }
}
EXAMPLES = {
    _PATH: {
        "one_answer_one_problem": {
            "cases": [
                {
                    "index": 0,
                    "answer": ANSWERS["below_threshold"].model_dump(mode="json"),
                    "problem": None,
                    "audit_hash": "5f3b" * 16,
                },
                {
                    "index": 1,
                    "answer": None,
                    "problem": Problem.from_error(
                        RequestError("image_empty", index=0), "batch-0001"
                    ).model_dump(),
                    "audit_hash": None,
                },
            ]
        }
    }
}
_SENT = {
    "schema": {"$ref": "#/components/schemas/Batch"},
    "examples": {
        "two_cases": {"value": {"cases": [{"images": [PICTURE], "history": HISTORY}, {"images": [PICTURE]}]}}
    },
}
_DESCRIPTION = describe_case_operation(
    _PATH,
    {JSON_TYPE: _SENT},
    {"model": BatchAnswer},
    BATCH_CODES,
    f"1 to {MAX_CASES_PER_BATCH} cases; all together within the limit for one request.",
)


@router.post(_PATH, **_DESCRIPTION)
async def triage_batch(request: Request) -> Response:
    """Score several cases. A case that cannot be scored does not affect the others."""
    async with recording_refusals(request, {"face": _NAME}):
        with await admit(request, (JSON_TYPE,)) as slot:
            idempotency_key = parse_idempotency_key(request)
            body = await receive_in_time(request, read_json_body(request, slot))
            deadline = answer_deadline(request)
            cases = await run_in_pool(request, single_step(partial(_parse_cases, body)), deadline)
            del body
            _charge_rate_limit(request, len(cases))
            items = await _score_all(request, cases, idempotency_key, deadline)
    headers = language_headers(language_of(request))
    return Response(b'{"cases":[' + b",".join(items) + b"]}", media_type=JSON_TYPE, headers=headers)


def _parse_cases(body: bytes) -> list[Any]:
    """The cases as sent, not yet validated: each is refused on its own."""
    cases = json_body.validate_as(Batch, json_body.parse(body)).cases
    if not 1 <= len(cases) <= MAX_CASES_PER_BATCH:
        raise RequestError("too_many_cases")
    return cases


def _charge_rate_limit(request: Request, cases: int) -> None:
    """Charge the further cases to the caller's rate limit: the middleware counted the batch as one."""
    caller = request.state.caller
    if caller is not ANONYMOUS and cases > 1:
        service_of(request).rate_limiter.take_further_cases(
            caller, asyncio.get_running_loop().time(), cases - 1
        )


async def _score_all(
    request: Request, cases: list[Any], idempotency_key: str | None, deadline: float
) -> list[bytes]:
    """Score the cases, at most one for each thread at once and as far as slots are free; we hold one."""
    pool = service_of(request).pool
    waiting, items = iter(enumerate(cases)), [b""] * len(cases)

    async def work() -> None:
        for index, tree in waiting:
            items[index] = await _score_item(request, index, tree, idempotency_key, deadline)

    with ExitStack() as extra_slots:
        workers = 1
        while workers < min(len(cases), pool.threads) and pool.cases < pool.capacity:
            extra_slots.enter_context(pool.reserve_slot())
            workers += 1
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
    return items


async def _score_item(
    request: Request, index: int, tree: object, idempotency_key: str | None, deadline: float
) -> bytes:
    """One case of the batch, as the JSON text of a ``BatchItem``."""
    audit_fields: dict[str, object] = {"face": _NAME, "batch_index": index}
    # '#' cannot occur in a key from a client.
    key = None if idempotency_key is None else f"{idempotency_key}#{index}"
    try:
        async with recording_refusals(request, audit_fields), idempotency_lock(request, key, deadline):
            result = await score_case(request, partial(v1.parse_case, tree), audit_fields, key, deadline)
            end = await record_answer(request, result, audit_fields)
            remember_answer(request, result, audit_fields, key)
    except RequestError as error:
        refusal = error
    except Exception as error:
        log.error(
            "internal error", exc_info=error, extra={"fields": {"request_id": request.state.request_id}}
        )
        refusal = RequestError("internal_error")
    else:
        head = None if end is None else end.head
        # Inserted verbatim: the log holds the hash of these bytes.
        tail = f',"problem":null,"audit_hash":{json.dumps(head)}}}'
        return f'{{"index":{index},"answer":'.encode() + result.body + tail.encode()
    service_of(request).telemetry.count_problem(refusal.code)
    problem = Problem.from_error(refusal, request.state.request_id).model_dump_json(exclude_none=True)
    return f'{{"index":{index},"answer":null,"problem":{problem},"audit_hash":null}}'.encode()
