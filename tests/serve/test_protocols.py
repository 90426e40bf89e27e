"""What holds whatever protocol a case came by: the same keys, limits, log, counters, repeats and words."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import httpx_60s
import tiny_bundle
from histories import flag
from lesion_triage.bundle.forbidden_words import forbidden_words_in
from lesion_triage.bundle.messages import Catalogue
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.scorer import Scorer
from sent_cases import JSON, WAYS, as_json, dicom, in_base64, media, order, told
from triage_server.api_keys import new_key
from triage_server.audit_chain import files_of, verify

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]
NAME, PLACE, BORN = "Mustermann", "Hintertupfing", "1931-07-23"
EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def code_of(response: httpx.Response) -> str:
    """The problem's code, wherever this protocol says it; of a batch that of its only case."""
    document = response.json()
    if "issue" in document:
        code: str = document["issue"][0]["details"]["coding"][0]["code"]
        return code
    if "cases" in document:
        document = document["cases"][0]["problem"]
    return str(document["code"])


def disposition_of(response: httpx.Response) -> str:
    document = response.json()
    if "cases" in document:
        document = document["cases"][0]["answer"]
    if "outputs" in document:
        return str(document["outputs"][0]["data"][0])
    if "entry" in document:
        extensions = document["entry"][1]["resource"]["extension"]
        return str(next(one["valueCode"] for one in extensions if one["url"].endswith("disposition")))
    if "cards" in document:
        texts = {text: name for name, text in Catalogue.load("en").dispositions.items()}
        return str(texts[document["cards"][0]["summary"]])
    return str(document["disposition"])


@EVERY_WAY
@pytest.mark.parametrize(
    ("kind", "disposition"),
    [("referred", "needs_in_person"), ("below", "below_threshold"), ("black", "ungradable")],
)
def test_the_policy_decides_alike_at_every_door(
    way: Any, kind: str, disposition: str, ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes]
):
    response = ask(make_app(), "POST", way.path, **way.request(picture_bytes(kind, "JPEG")))
    assert response.status_code == 200, response.text
    assert disposition_of(response) == disposition
    assert response.headers["content-language"] == "en"


@EVERY_WAY
def test_a_red_flag_in_the_history_refers_at_every_door(
    way: Any, ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    flags = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "bleeding"),))
    app = make_app(Scorer(tiny_bundle.make(tmp_path / "tiny", red_flags=flags)))
    picture = picture_bytes("below", "JPEG")
    said = ask(app, "POST", way.path, **way.request(picture, bleeding=True, age_years=61))
    silent = ask(app, "POST", way.path, **way.request(picture, bleeding=False))
    assert (disposition_of(said), disposition_of(silent)) == ("needs_in_person", "below_threshold")


@EVERY_WAY
@pytest.mark.parametrize("what", ["no bytes", "text", "cut off", "a hundred megapixels", "GIF"])
def test_bad_picture_is_refused_with_its_code_at_every_door(
    way: Any, what: str, ask: Ask, make_app: MakeApp, bad_pictures: Any, draw: Any
):
    picture, code = bad_pictures[what]
    response = ask(make_app(), "POST", way.path, **way.request(draw(), picture))
    assert response.status_code == (200 if "batch" in way.path else 422)
    assert code_of(response) == code


# What a hostile client sends

_DEEP = b'{"a":' * 70 + b"1" + b"}" * 70
_HOSTILE = {
    "no bytes": (b"", "json_not_valid"),
    "no JSON": (b"\xff\xd8\xff\xe0", "json_not_valid"),
    "no UTF-8": (b'{"a": "\xff"}', "json_not_valid"),
    "cut off": (b'{"images": ["AAAA', "json_not_valid"),
    "a list": (b"[]", "json_not_valid"),
    "deep": (_DEEP, "json_not_valid"),
    "very deep": (b"[" * 15_000, "json_not_valid"),
    "endlessly many": (b'{"images": [' + b"0," * 30_000 + b"0]}", "json_not_valid"),
    "a million objects": (b'{"images": [' + b"{}," * 1_000_000 + b"0]}", "json_not_valid"),
    "a key twice": (b'{"images": [], "images": [], "inputs": [], "inputs": []}', "json_not_valid"),
    "not a number": (b'{"images": NaN}', "json_not_valid"),
    "a long number": (b'{"images": ' + b"9" * 10_000 + b"}", "json_not_valid"),
    "empty": (b"{}", "document_not_valid"),
    "wrong types": (
        b'{"images": {}, "cases": 1, "inputs": "x", "resourceType": [], "hook": {}, "prefetch": 3}',
        "document_not_valid",
    ),
    "lone surrogate": (b'{"\\ud800": "\\udfff"}', "document_not_valid"),
}


@EVERY_WAY
@pytest.mark.parametrize("what", _HOSTILE)
def test_hostile_json_is_a_problem_at_every_door(way: Any, what: str, ask: Ask, make_app: MakeApp):
    body, code = _HOSTILE[what]
    response = ask(make_app(), "POST", way.path, content=body, headers=JSON)
    assert response.status_code in (400, 422), response.text
    assert code_of(response) == code


@EVERY_WAY
@pytest.mark.parametrize(
    "text",
    [
        "AAA",
        "AA=A",
        "A" * 1001,
        "/9j_",
        "data:image/png;base64,AAAA",
        "====",
        "ÄÄÄÄ",
        7,
        None,
        {},
        [],
        True,
    ],
)
def test_photograph_that_is_no_base64_is_refused(way: Any, text: Any, ask: Ask, make_app: MakeApp, draw: Any):
    request = way.request(draw())
    spoilt = request["content"].replace(json.dumps(in_base64(draw())), json.dumps(text))
    response = ask(make_app(), "POST", way.path, content=spoilt, headers=JSON)
    missing = "photograph_by_address" if text is None else "base64_not_valid"
    assert code_of(response) in ("base64_not_valid", missing)
    assert response.status_code == (200 if "batch" in way.path else 422)


@EVERY_WAY
@pytest.mark.parametrize("number", [0, 17, 200])
def test_a_case_has_1_to_16_photographs_at_every_door(
    way: Any, number: int, ask: Ask, make_app: MakeApp, draw: Any
):
    app, photograph = make_app(), draw(1, 1, "PNG")
    response = ask(app, "POST", way.path, **way.request(*[photograph] * 16))
    assert disposition_of(response) == "ungradable"
    response = ask(app, "POST", way.path, **way.request(*[photograph] * number))
    none = "prefetch_missing" if "cds" in way.path else "no_image"
    assert code_of(response) == (none if number == 0 else "too_many_images")


@EVERY_WAY
@pytest.mark.parametrize(
    "history", [{"name": "x"}, {"age_years": 200}, {"bleeding": "yes"}, {"sex": "x" * 20_000}, {"sex": "<b>"}]
)
def test_a_history_that_is_none_is_refused_at_every_door(
    way: Any, history: dict[str, Any], ask: Ask, make_app: MakeApp, draw: Any
):
    response = ask(make_app(), "POST", way.path, **way.request(draw(), **history))
    assert code_of(response) == "history_not_valid"


@EVERY_WAY
def test_other_media_types_and_long_bodies_are_refused_at_every_door(way: Any, ask: Ask, make_app: MakeApp):
    app, small = make_app(max_body_bytes=100), make_app(max_pending_bytes=50)
    xml = {"Content-Type": "text/xml"}
    assert code_of(ask(app, "POST", way.path, content=b"x", headers=xml)) == "media_type_not_supported"
    assert code_of(ask(app, "POST", way.path, content=b"x" * 101, headers=JSON)) == "body_too_large"
    assert code_of(ask(small, "POST", way.path, content=b"x" * 51, headers=JSON)) == "busy"
    for pool in (app.state.service.pool, small.state.service.pool):
        assert pool.cases == pool.pending_bytes == 0


@EVERY_WAY
def test_memory_for_reading_is_counted_and_a_text_of_wide_letters_takes_more(
    way: Any, ask: Ask, make_app: MakeApp
):
    app = make_app(max_pending_bytes=6000)
    narrow, wide = (json.dumps({"x" * 1000: letter}, ensure_ascii=False) for letter in ("a", "😀"))
    assert code_of(ask(app, "POST", way.path, content=narrow, headers=JSON)) == "document_not_valid"
    assert code_of(ask(app, "POST", way.path, content=wide, headers=JSON)) == "body_too_large"
    escaped = json.dumps(json.loads(wide))
    assert code_of(ask(app, "POST", way.path, content=escaped, headers=JSON)) == "body_too_large"
    assert app.state.service.pool.pending_bytes == 0


# Keys, log, counters, repeats


@pytest.fixture(scope="module")
def guarded(
    tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory, start: Callable[..., Any]
) -> Iterator[tuple[Any, Path, str, str]]:
    """A server with keys and a log: it, its log, a key that may score, a key that may read."""
    folder = tmp_path_factory.mktemp("guarded")
    keys, log = folder / "keys", folder / "audit"
    key, reading = new_key(keys, "clinic-a", "score"), new_key(keys, "watch", "read")
    variables = {"TRIAGE_API_KEYS_FILE": str(keys), "TRIAGE_AUDIT_LOG": str(log)}
    with start(tiny_bundle, folder, **variables) as server:
        yield server, log, key, reading


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files_of(folder) for line in file.read_bytes().splitlines()]


def post(
    server: Any, way: Any, request: dict[str, Any], key: str | None = None, **more: str
) -> httpx.Response:
    shown = {"Authorization": f"Bearer {key}"} if key else {}
    headers = {**request["headers"], **shown, **more}
    return httpx_60s.post(server.url + way.path, content=request["content"], headers=headers)


@EVERY_WAY
def test_no_door_is_open_to_strangers_or_to_those_who_may_only_read(way: Any, guarded: Any, draw: Any):
    server, log, _, reading = guarded
    before = len(lines_of(log))
    stranger = post(server, way, way.request(draw()))
    assert (stranger.status_code, code_of(stranger)) == (401, "not_authenticated")
    reader = post(server, way, way.request(draw()), reading)
    assert (reader.status_code, code_of(reader)) == (403, "not_allowed")
    assert [line["problem"] for line in lines_of(log)[before:]] == ["not_allowed"]


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/models/tiny", "/v2/models/tiny/ready", "/cds-services", "/fhir/metadata"]
)
def test_what_tells_of_the_server_takes_a_key_and_probes_take_none(path: str, guarded: Any):
    server, _, _, reading = guarded
    assert httpx_60s.get(server.url + path).status_code == 401
    assert httpx_60s.get(server.url + path, headers={"Authorization": f"Bearer {reading}"}).status_code == 200
    for probe in ("/v2/health/live", "/v2/health/ready"):
        assert httpx_60s.get(server.url + probe).status_code == 200


@pytest.mark.parametrize(("name", "way"), WAYS.items(), ids=WAYS)
def test_each_answer_is_in_the_log_before_it_is_sent_and_repeats_by_its_key(
    name: str, way: Any, guarded: Any, draw: Any
):
    server, log, key, _ = guarded
    before = len(lines_of(log))
    request, again = way.request(draw(), age_years=50), {"Idempotency-Key": f"{name}-0123456789abcdef"}
    first, second = (post(server, way, request, key, **again) for _ in range(2))
    other = post(server, way, way.request(draw(seed=1)), key, **again)
    assert code_of(other) == "repeated_differently"
    lines = lines_of(log)[before:]
    assert [line["event"] for line in lines] == ["answer", "repeat", "refusal"]
    assert {line["face"] for line in lines} == {name}
    assert lines[0]["answer_sha256"] == lines[1]["answer_sha256"]
    for response, line in ((first, lines[0]), (second, lines[1])):
        batch = name == "batch"
        told = response.json()["cases"][0]["audit_hash"] if batch else response.headers["x-audit-hash"]
        assert told == line["hash"]
    if name != "batch":
        assert first.content == second.content
    verify(log)


def test_a_key_for_one_face_does_not_bring_the_answer_of_another(guarded: Any, draw: Any):
    server, _, key, _ = guarded
    again = {"Idempotency-Key": "one-key-for-two-faces"}
    assert post(server, WAYS["v1"], WAYS["v1"].request(draw()), key, **again).status_code == 200
    other = post(server, WAYS["fhir"], WAYS["fhir"].request(draw()), key, **again)
    assert code_of(other) == "repeated_differently"


def test_another_patient_under_the_same_key_does_not_get_the_first_one_s_answer(guarded: Any, draw: Any):
    server, _, key, _ = guarded
    again, way = {"Idempotency-Key": "one-key-for-two-people"}, WAYS["fhir"]
    request = way.request(draw())
    assert post(server, way, request, key, **again).status_code == 200
    request["content"] = request["content"].replace("Patient/p1", "Patient/p2")
    assert code_of(post(server, way, request, key, **again)) == "repeated_differently"


def test_counters_count_every_face(guarded: Any, draw: Any):
    server, _, key, _ = guarded

    def answers() -> float:
        page = httpx_60s.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {key}"}).text
        counts = re.findall(r"^triage_answers_total\{[^}]*\} (\S+)$", page, re.MULTILINE)
        return sum(float(count) for count in counts)

    before = answers()
    for way in WAYS.values():
        assert post(server, way, way.request(draw()), key).status_code == 200
    assert answers() - before == len(WAYS)


# What is never said


@EVERY_WAY
@pytest.mark.parametrize("language", ["en", "de"])
def test_no_face_names_a_condition_or_soothes(
    way: Any, language: str, ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes]
):
    app, notice = make_app(), Catalogue.load(language).notice
    for kind in ("referred", "below", "black"):
        request = way.request(picture_bytes(kind, "JPEG"), age_years=61, bleeding=True)
        request["headers"]["Accept-Language"] = language
        response = ask(app, "POST", way.path, **request)
        text = json.dumps(response.json(), ensure_ascii=False)
        said = text.replace(json.dumps(notice, ensure_ascii=False)[1:-1], "")
        assert notice[:10] in text
        assert forbidden_words_in(language, said) == []
        assert "NaN" not in text


def test_nothing_of_a_person_is_written_or_answered(launch: Callable[..., Any], tmp_path: Path, draw: Any):
    log = tmp_path / "audit"
    patient = {
        "resourceType": "Patient",
        "id": "p1",
        "name": [{"family": NAME}],
        "address": [{"city": PLACE}],
        "gender": "female",
        "birthDate": BORN,
    }
    born_never = {**patient, "birthDate": f"{BORN}T"}
    tagged = draw() + NAME.encode()
    secret = {"fhirServer": f"https://{NAME}.example", "fhirAuthorization": {"access_token": NAME}}
    named = media(tagged, "m0", note=[{"text": NAME}])
    named["content"]["title"] = f"{NAME}.jpg"
    sent = order("Media/m0", subject={"reference": "Patient/p1", "display": NAME}, note=[{"text": NAME}])
    fhir = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": one} for one in (patient, sent, named)],
    }
    hook = {
        **WAYS["cds-hooks"].sent(tagged),
        **secret,
    }
    hook["context"]["draftOrders"]["entry"][0]["resource"]["note"] = [{"text": NAME}]
    hook["prefetch"]["patient"] = patient
    array = np.full((120, 160, 3), 128, np.uint8)
    pixels = {"Content-Type": "application/dicom"}
    bodies: list[tuple[str, Any, int]] = [
        ("/fhir/$triage", fhir, 200),
        ("/fhir/$triage", {**fhir, "entry": [{"resource": one} for one in (born_never, sent, named)]}, 422),
        (
            "/fhir/$triage",
            {**fhir, "entry": [*fhir["entry"], {"resource": told(age_years=9)}]},
            422,
        ),
        ("/fhir/$triage", {**fhir, "entry": [*fhir["entry"], {"resource": {"resourceType": NAME}}]}, 422),
        ("/fhir/$triage", {"resourceType": NAME}, 422),
        ("/cds-services/lesion-triage", hook, 200),
        ("/cds-services/lesion-triage", {**hook, "hook": NAME}, 422),
        ("/v2/models/tiny/infer", {**WAYS["open-inference"].sent(tagged), "parameters": {NAME: NAME}}, 200),
        ("/v2/models/tiny/infer", {**WAYS["open-inference"].sent(tagged), "id": f"{NAME} Erika"}, 422),
        (f"/v2/models/{NAME}/infer", WAYS["open-inference"].sent(tagged), 404),
        ("/v1/triage", as_json(tagged), 200),
        ("/v1/triage", {**as_json(tagged), NAME: NAME}, 422),
        (
            "/v1/triage/batch",
            {"cases": [as_json(tagged), {NAME: NAME}, as_json(tagged, **{NAME: NAME})]},
            200,
        ),
    ]
    with launch(TRIAGE_AUDIT_LOG=str(log)) as server:
        answers = []
        with httpx_60s.Client(base_url=server.url, params={"patient": NAME}) as client:
            for path, body, status in bodies:
                answers.append(client.post(path, content=json.dumps(body), headers=JSON))
                assert answers[-1].status_code == status, answers[-1].text
            for file, status in (
                (dicom(tagged, NAME), 200),
                (dicom(array, NAME), 200),
                (dicom(tagged, NAME, SOPClassUID="1.2.3.4"), 422),
                (dicom(tagged, NAME)[:700], 422),
                (dicom(array, NAME, PhotometricInterpretation=NAME, PatientBirthDate=NAME), 422),
                (dicom(array, NAME, SOPClassUID=NAME), 422),
            ):
                form = {"image": (f"{NAME}.dcm", file)}
                for request in ({"content": file, "headers": pixels}, {"files": form}):
                    answers.append(client.post("/v1/triage", **request))
                    assert answers[-1].status_code == status, answers[-1].text
        assert server.stop() == 0
        written = [file.read_text(errors="replace") for file in files_of(log)]
        written += [server.text(), *(answer.text + str(answer.headers) for answer in answers)]
    spellings = [NAME, PLACE, BORN, BORN.replace("-", ""), base64.b64encode(NAME.encode()).decode()[:12]]
    for text in written:
        assert [word for word in spellings if word.lower() in text.lower()] == []
