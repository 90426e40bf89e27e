"""The tensors of the Open Inference Protocol: a case read, an answer written. Imports the intake.

There is no output for a logit: whoever compared it with a threshold of their own could read "below" where the
policy says otherwise. A missing value is an empty tensor, never NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lesion_triage.bundle.document import Document
from lesion_triage.bundle.history import NO_HISTORY
from lesion_triage.bundle.schema import Answer
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server import json_body
from triage_server.case_pipeline import ParsedCase
from triage_server.examples import ANSWERS
from triage_server.intake import SentCase, check_photograph_count, parse_history_json
from triage_server.problems import RequestError
from triage_server.wire import MAX_HISTORY_BYTES

IMAGE_INPUT, HISTORY_INPUT = "image", "history"
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class _ProtocolModel(BaseModel):
    """Ignores unknown parameters, which the protocol lets clients send."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TensorParameters(_ProtocolModel):
    """Where a tensor's data are, if not in the JSON."""

    binary_data_size: int | None = Field(default=None, ge=0)


class RequestInput(_ProtocolModel):
    """One input tensor of bytes."""

    name: Literal["image", "history"]
    datatype: Literal["BYTES"]
    shape: list[int] = Field(min_length=1, max_length=2)
    data: list[Any] | None = None
    parameters: TensorParameters = TensorParameters()


class RequestOutput(_ProtocolModel):
    """A requested output. All are returned anyway: a score without its disposition would mislead."""

    name: str


class InferRequest(_ProtocolModel):
    """One case: a tensor of photographs and, optionally, a tensor of one history."""

    id: Id | None = None
    inputs: list[RequestInput] = Field(min_length=1, max_length=2)
    outputs: list[RequestOutput] = Field(default=[], max_length=64)


class Tensor(Document):
    """Name, type and shape of an input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class OutputTensor(Tensor):
    """An output tensor."""

    data: tuple[str | bool | int | float, ...]


class InferAnswer(Document):
    """The policy's whole answer for one case."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: tuple[OutputTensor, ...]


def output_tensors(answer: Answer) -> tuple[OutputTensor, ...]:
    """An answer as one-dimensional tensors; a missing value is an empty tensor."""
    images = answer.images
    return (
        _output("disposition", "BYTES", [answer.disposition.value]),
        _output("priority_band", "INT32", [answer.priority_band]),
        _output("score", "FP64", [] if answer.score is None else [answer.score]),
        _output("threshold", "FP64", [answer.threshold]),
        _output("deadline_hours", "FP64", [] if answer.deadline_hours is None else [answer.deadline_hours]),
        _output("reasons", "BYTES", [reason.code.value for reason in answer.reasons]),
        _output("red_flags", "BYTES", [flag.code for flag in answer.red_flags]),
        _output("image_gradable", "BOOL", [image.gradable for image in images]),
        _output(
            "image_reasons",
            "BYTES",
            [" ".join(reason.code.value for reason in one.reasons) for one in images],
        ),
        _output("limits", "BYTES", [limit.text for limit in answer.limits]),
        _output("note", "BYTES", [answer.note]),
        _output("notice", "BYTES", [answer.notice]),
        _output("synthetic", "BOOL", [answer.synthetic]),
        _output("certificate_id", "BYTES", [answer.certificate_id]),
        _output("bundle_sha256", "BYTES", [answer.bundle_sha256]),
    )


def _output(name: str, datatype: str, data: Sequence[str | bool | int | float]) -> OutputTensor:
    return OutputTensor(name=name, datatype=datatype, shape=(len(data),), data=tuple(data))


_VARIABLE_LENGTH = {
    "score",
    "deadline_hours",
    "reasons",
    "red_flags",
    "image_gradable",
    "image_reasons",
    "limits",
}
OUTPUTS = tuple(
    Tensor(name=one.name, datatype=one.datatype, shape=(-1 if one.name in _VARIABLE_LENGTH else 1,))
    for one in output_tensors(ANSWERS["needs_in_person"])
)
INPUTS = (
    Tensor(name=IMAGE_INPUT, datatype="BYTES", shape=(-1,)),
    Tensor(name=HISTORY_INPUT, datatype="BYTES", shape=(-1,)),
)
_OUTPUT_NAMES = {one.name for one in OUTPUTS}


def parse_case(body: bytes, binary: memoryview, name: str, version: str) -> ParsedCase:
    """The case in a request, from its JSON part and its binary part."""
    tree = json_body.parse(body)
    infer_request = json_body.validate_as(InferRequest, tree)
    parts = (tree, *tree["inputs"])
    for place in (*parts, *(part.get("parameters") for part in parts)):
        # Others are ignored, as the protocol asks; but a history that is ignored is a red flag unseen.
        if isinstance(place, dict) and not {IMAGE_INPUT, HISTORY_INPUT}.isdisjoint(place):
            raise RequestError("document_not_valid", fields="image or history outside inputs")
    if not {one.name for one in infer_request.outputs} <= _OUTPUT_NAMES:
        raise RequestError("document_not_valid", fields="outputs: an unknown name")
    tensors: dict[str, list[Any]] = {}
    for one in infer_request.inputs:
        if one.name in tensors:
            raise RequestError("document_not_valid", fields="inputs: a duplicate name")
        size = one.parameters.binary_data_size
        if (size is None) is (one.data is None):
            raise RequestError(
                "document_not_valid", fields="inputs: expected either data or binary_data_size"
            )
        if size is None:
            tensors[one.name] = _flat_data(one)
        else:
            tensors[one.name], binary = _split_elements(binary[:size], size), binary[size:]
        if one.shape not in ([len(tensors[one.name])], [1, len(tensors[one.name])]):
            raise RequestError("document_not_valid", fields="inputs: a shape that does not match the data")
    if binary:
        raise RequestError("document_not_valid", fields="bytes after the last tensor")

    request_id = infer_request.id  # the rest of the request, all its base64, is not kept until the answer

    def render(answer: Answer) -> bytes:
        outputs = output_tensors(answer)
        made = InferAnswer(model_name=name, model_version=version, id=request_id, outputs=outputs)
        return made.model_dump_json(exclude_none=True).encode()

    return ParsedCase(_case(tensors), render, echoed=(request_id or "").encode())


def _flat_data(one: RequestInput) -> list[Any]:
    """The elements of a tensor, whose data may be flat or nested as its shape says."""
    data = one.data or []
    if len(one.shape) == 2 and len(data) == 1 and isinstance(data[0], list):
        return data[0]
    return data


def _case(tensors: Mapping[str, list[Any]]) -> SentCase:
    images, histories = tensors.get(IMAGE_INPUT, []), tensors.get(HISTORY_INPUT, [])
    check_photograph_count(len(images))
    if len(histories) > 1:
        raise RequestError("history_not_valid", fields="more than one")
    pictures = [
        image if isinstance(image, bytes) else json_body.decode_base64(image, index)
        for index, image in enumerate(images)
    ]
    return SentCase(pictures, parse_history_json(_history_text(histories[0])) if histories else NO_HISTORY)


def _history_text(element: object) -> bytes:
    if isinstance(element, bytes):
        return element
    if isinstance(element, str) and len(element) <= MAX_HISTORY_BYTES:
        return element.encode("utf-8", "replace")
    raise RequestError("history_not_valid", fields="not a text, or too long")


def _split_elements(data: memoryview, size: int) -> list[bytes]:
    """The elements of a tensor of bytes in the binary extension: each has its length, then its bytes."""
    if len(data) < size:
        raise RequestError("document_not_valid", fields="binary_data_size: more bytes than were sent")
    found: list[bytes] = []
    offset = 0
    while offset < size:
        start = offset + 4
        offset = start + int.from_bytes(data[offset:start], "little")
        if offset > size or start > size or len(found) > MAX_IMAGES_PER_CASE:
            raise RequestError(
                "document_not_valid", fields="binary_data_size: incomplete elements, or too many"
            )
        found.append(bytes(data[start:offset]))
    return found
