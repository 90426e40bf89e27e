"""The Open Inference Protocol, version 2 (KServe, Triton, MLServer). Imports the case pipeline.

One request is one case; ``tensors`` says what its tensors hold.
"""

from __future__ import annotations

import json
from typing import Literal

from fastapi import APIRouter, Request, Response

from lesion_triage import __version__
from lesion_triage.bundle.document import Document
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server.case_pipeline import (
    CaseParser,
    ProtocolAdapter,
    check_ready,
    recording_refusals,
    reserve_parsing_memory,
    respond,
)
from triage_server.examples import ANSWERS, HISTORY, PICTURE
from triage_server.intake import read_body
from triage_server.json_body import parsing_memory_bytes
from triage_server.openapi import (
    ACCESS_CODES,
    CASE_CODES,
    JSON_CODES,
    READY_CODES,
    describe_case_operation,
    describe_read_operation,
)
from triage_server.pool import CaseSlot
from triage_server.problems import RequestError
from triage_server.service import service_of
from triage_server.tensors import (
    HISTORY_INPUT,
    IMAGE_INPUT,
    INPUTS,
    OUTPUTS,
    InferAnswer,
    InferRequest,
    Tensor,
    output_tensors,
    parse_case,
)
from triage_server.wire import JSON_TYPE, document_response

router = APIRouter()

_HEADER = "inference-header-content-length"


class ServerFacts(Document):
    """Name and version of the server."""

    name: str
    version: str
    extensions: tuple[str, ...]


class ModelFacts(Document):
    """Inputs and outputs of the model. -1 in a shape: any number."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Live(Document):
    """The process is running."""

    live: Literal[True] = True


class Ready(Document):
    """A case would be accepted now."""

    ready: Literal[True] = True


class ModelReady(Ready):
    """A case would be accepted now, for this model."""

    name: str


async def _receive(request: Request, slot: CaseSlot) -> CaseParser:
    service = service_of(request)
    name, version = service.bundle.header.name, service.bundle.sha256
    limit = service.settings.max_body_bytes
    body = await read_body(request, max_body_bytes=limit, reserve=slot.reserve_bytes)
    header_lengths = request.headers.getlist(_HEADER)
    if header_lengths and not (
        len(header_lengths) == 1
        and header_lengths[0].isdecimal()
        and len(header_lengths[0]) < 12
        and int(header_lengths[0]) <= len(body)
    ):
        raise RequestError("document_not_valid", fields="Inference-Header-Content-Length")
    length = int(header_lengths[0]) if header_lengths else len(body)
    # Of the binary part nothing is parsed: its elements are cut out, and so are in memory twice.
    reserve_parsing_memory(request, slot, parsing_memory_bytes(body[:length]) + len(body) - length)
    return lambda: parse_case(body[:length], memoryview(body)[length:], name, version)


ADAPTER = ProtocolAdapter("open-inference", (JSON_TYPE, "application/octet-stream"), _receive)

_MODEL = "/v2/models/{name}"
_INFER = f"{_MODEL}/infer"
_NAME_PARAMETER = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "Of the bundle, as at GET /v1/bundle.",
    "schema": {"type": "string"},
}
SCHEMAS = {
    "InferRequest": InferRequest.model_json_schema(
        ref_template="#/components/schemas/InferRequest/$defs/{model}"
    )
}
EXAMPLES = {
    _INFER: {
        name: InferAnswer(
            model_name="example", model_version="5f3b" * 16, outputs=output_tensors(answer)
        ).model_dump(mode="json", exclude_none=True)
        for name, answer in ANSWERS.items()
    }
}
_SENT = {
    "schema": {"$ref": "#/components/schemas/InferRequest"},
    "examples": {
        "one_case": {
            "value": {
                "id": "case-0001",
                "inputs": [
                    {"name": IMAGE_INPUT, "datatype": "BYTES", "shape": [1], "data": [PICTURE]},
                    {"name": HISTORY_INPUT, "datatype": "BYTES", "shape": [1], "data": [json.dumps(HISTORY)]},
                ],
            }
        }
    },
}


@router.get("/v2", **describe_read_operation("/v2", {"model": ServerFacts}, *ACCESS_CODES))
async def server_facts(request: Request) -> Response:
    """Name and version of the server."""
    return document_response(
        ServerFacts(name="lesion-triage", version=__version__, extensions=("binary_tensor_data",))
    )


@router.get("/v2/health/live", **describe_read_operation("/v2/health/live", {"model": Live}))
async def live(request: Request) -> Response:
    """The process is running."""
    return document_response(Live())


@router.get("/v2/health/ready", **describe_read_operation("/v2/health/ready", {"model": Ready}, *READY_CODES))
async def ready(request: Request) -> Response:
    """The same as GET /health/ready."""
    await check_ready(request)
    return document_response(Ready())


@router.get(
    _MODEL,
    **describe_read_operation(
        _MODEL, {"model": ModelFacts}, *ACCESS_CODES, "model_not_found", parameters=(_NAME_PARAMETER,)
    ),
)
async def model_facts(request: Request) -> Response:
    """Inputs and outputs of the model; its version is the hash of the bundle."""
    name = _check_model_name(request)
    return document_response(
        ModelFacts(
            name=name,
            versions=(service_of(request).bundle.sha256,),
            platform="lesion-triage_policy",
            inputs=INPUTS,
            outputs=OUTPUTS,
        )
    )


@router.get(
    f"{_MODEL}/ready",
    **describe_read_operation(
        f"{_MODEL}/ready",
        {"model": ModelReady},
        *ACCESS_CODES,
        *READY_CODES,
        "model_not_found",
        parameters=(_NAME_PARAMETER,),
    ),
)
async def model_ready(request: Request) -> Response:
    """A case would be accepted now."""
    name = _check_model_name(request)
    await check_ready(request)
    return document_response(ModelReady(name=name))


@router.post(
    _INFER,
    **describe_case_operation(
        _INFER,
        {JSON_TYPE: _SENT, "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        {"model": InferAnswer},
        (*CASE_CODES, *JSON_CODES, "model_not_found"),
        f"One case: a tensor 'image' of 1 to {MAX_IMAGES_PER_CASE} photographs in base64, and at most one "
        "'history' as JSON text; or both by the extension for binary tensors.",
        (_NAME_PARAMETER,),
    ),
)
async def infer(request: Request) -> Response:
    """Score one case, and return what the policy says of it as tensors."""
    async with recording_refusals(request, {"face": ADAPTER.name}):
        _check_model_name(request)
    return await respond(request, ADAPTER)


def _check_model_name(request: Request) -> str:
    """The requested model name, which must be the bundle's."""
    name = service_of(request).bundle.header.name
    if request.path_params["name"] != name:
        raise RequestError("model_not_found")
    return name
