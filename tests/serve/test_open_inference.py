from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from lesion_triage.bundle.scorer import Scorer
from sent_cases import JSON, as_tensors
from triage_server.app import create_app
from triage_server.audit_chain import files_of
from triage_server.audit_log import AuditLog
from triage_server.settings import Settings

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]
INFER = "/v2/models/tiny/infer"


def tensors(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return {one["name"]: one for one in response.json()["outputs"]}


def infer(ask: Ask, app: Any, document: Any) -> httpx.Response:
    return ask(app, "POST", INFER, content=json.dumps(document), headers=JSON)


def binary(*pictures: bytes, history: bytes | None = None) -> dict[str, Any]:
    """As Triton's clients write tensors of bytes."""
    parts = {"image": pictures} | ({"history": (history,)} if history is not None else {})
    packed = {
        name: b"".join(len(one).to_bytes(4, "little") + one for one in elements)
        for name, elements in parts.items()
    }
    inputs = [
        {
            "name": name,
            "datatype": "BYTES",
            "shape": [len(parts[name])],
            "parameters": {"binary_data_size": len(data)},
        }
        for name, data in packed.items()
    ]
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return {"content": head + b"".join(packed.values()), "headers": headers}


def test_tensors_are_what_the_policy_says_to_the_last_bit(
    ask: Ask, make_app: MakeApp, scorer: Scorer, draw: Any
):
    pictures = [draw(), draw(1, 1, "PNG")]
    answer = scorer.score(pictures)
    found = tensors(infer(ask, make_app(), as_tensors(*pictures)))
    assert found["score"]["data"] == [answer.score]
    assert found["threshold"]["data"] == [answer.threshold]
    assert found["disposition"]["data"] == [answer.disposition]
    assert found["priority_band"]["data"] == [answer.priority_band]
    assert found["image_gradable"]["data"] == [True, False]
    assert found["note"]["data"] == [answer.note]
    assert found["certificate_id"]["data"] == [answer.certificate_id]


def test_no_output_is_a_logit_and_a_score_never_comes_alone(ask: Ask, make_app: MakeApp, draw: Any):
    app = make_app()
    told = ask(app, "GET", "/v2/models/tiny").json()
    asked = {**as_tensors(draw()), "outputs": [{"name": "score"}]}
    found = tensors(infer(ask, app, asked))
    assert (
        found.keys() == {one["name"] for one in told["outputs"]} >= {"score", "disposition", "priority_band"}
    )
    assert not any("logit" in name for name in found)
    for one in told["outputs"]:
        tensor = found[one["name"]]
        assert tensor["datatype"] == one["datatype"]
        assert tensor["shape"] == [len(tensor["data"])]
        assert one["shape"] in ([-1], tensor["shape"])


def test_a_score_that_there_is_not_is_an_empty_tensor(
    ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes]
):
    found = tensors(infer(ask, make_app(), as_tensors(picture_bytes("black", "JPEG"))))
    assert (found["score"]["shape"], found["score"]["data"]) == ([0], [])
    assert found["disposition"]["data"] == ["ungradable"]


def test_binary_tensors_give_the_same_answer(ask: Ask, make_app: MakeApp, draw: Any):
    app, pictures = make_app(), (draw(), draw(seed=1))
    plain = infer(ask, app, as_tensors(*pictures, age_years=50))
    packed = ask(app, "POST", INFER, **binary(*pictures, history=b'{"age_years": 50}'))
    assert packed.content == plain.content


def _nested(document: dict[str, Any], shape: Callable[[int], list[int]], rows: int = 1) -> dict[str, Any]:
    inputs = [
        {**one, "shape": shape(len(one["data"])), "data": [one["data"]] * rows} for one in document["inputs"]
    ]
    return {"inputs": inputs}


@pytest.mark.parametrize("number", [1, 2])
def test_data_may_be_nested_as_its_shape_is(number: int, ask: Ask, make_app: MakeApp, draw: Any):
    app, document = make_app(), as_tensors(*(draw(seed=seed) for seed in range(number)), age_years=50)
    plain = infer(ask, app, document)
    assert plain.status_code == 200
    assert infer(ask, app, _nested(document, lambda count: [1, count])).content == plain.content


@pytest.mark.parametrize(
    ("shape", "rows"),
    [(lambda count: [count], 1), (lambda count: [1, count + 1], 1), (lambda count: [2, count], 2)],
    ids=["flat shape", "another number", "two cases"],
)
def test_data_nested_in_another_way_than_its_shape_is_refused(
    shape: Any, rows: int, ask: Ask, make_app: MakeApp, draw: Any
):
    response = infer(ask, make_app(), _nested(as_tensors(draw(), draw(seed=1)), shape, rows))
    assert (response.status_code, response.json()["code"]) == (422, "document_not_valid")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda request: request | {"content": request["content"][:-1]},
        lambda request: request | {"content": request["content"] + b"x"},
        lambda request: request | {"content": request["content"].replace(b'"shape": [2]', b'"shape": [3]')},
        lambda request: (
            request
            | {"content": request["content"].replace(b'"binary_data_size": ', b'"binary_data_size": 9')}
        ),
        lambda request: (
            request | {"headers": {**request["headers"], "Inference-Header-Content-Length": "9" * 9}}
        ),
        lambda request: (
            request | {"headers": {**request["headers"], "Inference-Header-Content-Length": "-1"}}
        ),
        lambda request: (
            request | {"headers": {**request["headers"], "Inference-Header-Content-Length": "1e3"}}
        ),
    ],
    ids=["cut off", "too long", "shape", "size", "header beyond", "negative header", "odd header"],
)
def test_binary_tensors_that_do_not_add_up_are_refused(spoil: Any, ask: Ask, make_app: MakeApp, draw: Any):
    response = ask(make_app(), "POST", INFER, **spoil(binary(draw(), draw())))
    assert (response.status_code, response.json()["code"]) in (
        (422, "document_not_valid"),
        (400, "json_not_valid"),
    )


def test_an_element_longer_than_its_tensor_is_refused(ask: Ask, make_app: MakeApp, draw: Any):
    request = binary(draw())
    length = int(request["headers"]["Inference-Header-Content-Length"])
    content = bytearray(request["content"])
    content[length : length + 4] = b"\xff" * 4
    response = ask(make_app(), "POST", INFER, content=bytes(content), headers=request["headers"])
    assert (response.status_code, response.json()["code"]) == (422, "document_not_valid")


def test_memory_is_reserved_for_parsing_the_json_part_alone(ask: Ask, make_app: MakeApp, draw: Any):
    photograph = draw()
    request = binary(photograph)
    length = int(request["headers"]["Inference-Header-Content-Length"])
    most = len(request["content"]) + 3 * length + len(request["content"]) - length
    answered = ask(make_app(max_pending_bytes=most), "POST", INFER, **request)
    assert answered.status_code == 200, answered.text
    refused = ask(make_app(max_pending_bytes=most - 1), "POST", INFER, **request)
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1], "data": [1]}]},
        {"inputs": [{"name": "pixels", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}]},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["AAAA"]}]},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}] * 2},
        {"outputs": [{"name": "logit"}]},
        {"id": "a b"},
        {"history": {"bleeding": True}},
        {"parameters": {"history": {"bleeding": True}}},
    ],
    ids=lambda change: json.dumps(change)[:60],
)
def test_a_request_of_another_shape_is_refused_with_the_protocol_s_member(
    change: dict[str, Any], ask: Ask, make_app: MakeApp, draw: Any
):
    response = infer(ask, make_app(), {**as_tensors(draw()), **change})
    document = response.json()
    assert (response.status_code, document["code"]) == (422, "document_not_valid")
    assert document["error"] == document["detail"]


@pytest.mark.parametrize(
    "part", [{"history": '{"bleeding": true}'}, {"parameters": {"history": "{}"}}], ids=str
)
def test_a_history_inside_an_input_is_refused_and_not_overlooked(
    part: dict[str, Any], ask: Ask, make_app: MakeApp, draw: Any
):
    document = as_tensors(draw())
    document["inputs"][0] |= part
    response = infer(ask, make_app(), document)
    assert (response.status_code, response.json()["code"]) == (422, "document_not_valid")


def test_other_members_and_parameters_are_ignored(ask: Ask, make_app: MakeApp, draw: Any):
    app, document = make_app(), as_tensors(draw())
    more = {"model_name": "tiny", "parameters": {"binary_data_output": True}, **document}
    assert infer(ask, app, more).content == infer(ask, app, document).content


def test_the_client_s_id_comes_back(ask: Ask, make_app: MakeApp, draw: Any):
    assert infer(ask, make_app(), {"id": "a-1", **as_tensors(draw())}).json()["id"] == "a-1"
    assert "id" not in infer(ask, make_app(), as_tensors(draw())).json()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_model_is_not_found(method: str, ask: Ask, make_app: MakeApp):
    path = "/v2/models/other" + ("/infer" if method == "POST" else "")
    response = ask(make_app(), method, path)
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_a_case_for_another_model_is_a_refusal_in_the_log(
    ask: Ask, scorer: Scorer, draw: Any, tmp_path: Path
):
    """As every client's is, where a bundle of another name has taken over."""
    with AuditLog(tmp_path / "audit", 2**20) as log:
        app = create_app(scorer.bundle, scorer, Settings(bundle=scorer.bundle.folder, threads=1), log)
        body = json.dumps(as_tensors(draw()))
        response = ask(app, "POST", "/v2/models/other/infer", content=body, headers=JSON)
    assert response.status_code == 404
    (line,) = (json.loads(line) for line in files_of(tmp_path / "audit")[0].read_bytes().splitlines())
    said = (line["event"], line["face"], line["problem"], line["request_id"])
    assert said == ("refusal", "open-inference", "model_not_found", response.headers["x-request-id"])


def test_a_full_server_is_not_ready_by_this_protocol_either(ask: Ask, make_app: MakeApp):
    app = make_app(queue=0)
    assert ask(app, "GET", "/v2/health/ready").json() == {"ready": True}
    with app.state.service.pool.reserve_slot():
        assert ask(app, "GET", "/v2/health/ready").status_code == 503
        assert ask(app, "GET", "/v2/models/tiny/ready").status_code == 503
        assert ask(app, "GET", "/v2/health/live").json() == {"live": True}
