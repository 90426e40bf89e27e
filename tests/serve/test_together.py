"""What was built apart holds together: a bundle changes under every protocol and the page, shadows see it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import httpx_60s
import tiny_bundle as tiny
from lesion_triage.bundle.store import Bundle
from sent_cases import WAYS
from triage_server.audit_chain import files_of, verify

PICTURE = tiny.picture_bytes("referred", "JPEG")
KEY = {"Idempotency-Key": "one-case-at-one-door"}
CASES = len(WAYS) + 1


@dataclass
class Heard:
    """All that was answered by one server before and after another bundle took over."""

    first: Bundle
    second: Bundle
    shadow: Bundle
    before: dict[str, httpx.Response]
    repeated: dict[str, httpx.Response]
    after: dict[str, httpx.Response]
    pages: list[str]
    """The page of the case sent before, of the one sent after, and of the certificate, all at the end."""
    lines: list[dict[str, Any]]
    metrics: str


class Visitor:
    """Somebody signed in at the page of a real server."""

    def __init__(self, url: str) -> None:
        self.client = httpx_60s.Client(base_url=url)
        self._token = self._token_on("/ui/login")
        self.client.post("/ui/login", data={"form_token": self._token, "reader": "A. Reader"})
        self._token = self._token_on("/ui/new")

    def send(self) -> str:
        """A case; gives its number."""
        files = {"image": ("a.jpg", PICTURE)}
        sent = self.client.post("/ui/cases", data={"form_token": self._token}, files=files)
        assert sent.status_code == 303, sent.text
        return httpx.URL(sent.headers["location"]).params["case"]

    def _token_on(self, path: str) -> str:
        found = re.search(r'name="form_token" value="([0-9a-f]{64})"', self.client.get(path).text)
        assert found
        return found[1]


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def at_every_door(url: str, headers: dict[str, str]) -> dict[str, httpx.Response]:
    heard = {}
    for name, way in WAYS.items():
        request = way.request(PICTURE)
        # No client of one protocol shares a key with another's.
        shown = {**request["headers"], **{key: f"{value}-{name}" for key, value in headers.items()}}
        heard[name] = httpx_60s.post(url + way.path, content=request["content"], headers=shown)
        assert heard[name].status_code == 200, heard[name].text
    return heard


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory, start: Callable[..., Any]) -> Heard:
    folder = tmp_path_factory.mktemp("together")
    first, second = tiny.make(folder / "a"), tiny.make(folder / "b", threshold=0.4)
    shadow = tiny.make(folder / "c", threshold=0.999)
    link, log = folder / "served", folder / "audit"
    link.symlink_to(first.folder)
    variables = {
        "TRIAGE_AUDIT_LOG": str(log),
        "TRIAGE_READING_QUEUE": str(folder / "queue.sqlite"),
        "TRIAGE_SHADOW_BUNDLES": str(shadow.folder),
    }
    with start(link, folder, **variables) as server:

        def shadowed() -> int:
            text = httpx_60s.get(f"{server.url}/metrics").text
            found = re.findall(r'triage_shadow_cases_total\{.*outcome="scored"\} (\S+)', text)
            return int(sum(map(float, found)))

        before, visitor = at_every_door(server.url, KEY), Visitor(server.url)
        early = visitor.send()
        wait_for(lambda: shadowed() == CASES)
        draft = folder / "draft"
        draft.symlink_to(second.folder)
        draft.replace(link)
        wait_for(lambda: second.sha256 in httpx_60s.get(f"{server.url}/v1/bundle").text)
        repeated, after = at_every_door(server.url, KEY), at_every_door(server.url, {})
        late = visitor.send()
        wait_for(lambda: shadowed() == 2 * CASES)
        paths = (f"/ui/cases/{early}", f"/ui/cases/{late}", "/ui/certificate")
        pages = [visitor.client.get(path).text for path in paths]
        metrics = httpx_60s.get(f"{server.url}/metrics").text
        visitor.client.close()
        assert server.stop() == 0
    verify(log)
    lines = [json.loads(line) for file in files_of(log) for line in file.read_bytes().splitlines()]
    return Heard(first, second, shadow, before, repeated, after, pages, lines, metrics)


def test_bundle_changes_at_every_door_and_a_repeated_case_keeps_its_first_answer(heard: Heard) -> None:
    a, b = heard.first.certificate.certificate_id(), heard.second.certificate.certificate_id()
    for name in WAYS:
        assert a in heard.before[name].text, name
        assert b in heard.after[name].text, name
        assert a not in heard.after[name].text, name
        if name != "batch":  # whose items hold the hashes of their lines in the log
            assert heard.repeated[name].content == heard.before[name].content
    said = {(line["event"], line["face"]): line for line in heard.lines if "face" in line}
    for name in WAYS:
        assert said["repeat", name]["bundle_sha256"] == heard.first.sha256


def test_page_shows_each_case_as_the_bundle_said_it_and_the_certificate_of_now(heard: Heard) -> None:
    early, late, certificate = heard.pages
    assert heard.first.sha256[:16] in early
    assert "Answered by another bundle" in early
    assert "Answered by another bundle" not in late
    link = '<a href="/ui/certificate"><code>'  # which would lead to the certificate of now
    assert (link in early, link in late) == (False, True)
    assert heard.first.sha256[:16] not in late
    assert heard.second.sha256 in certificate
    assert heard.first.sha256 not in certificate


def test_log_names_face_and_bundle_of_every_case_and_shadows_saw_them_all(heard: Heard) -> None:
    answers = [line for line in heard.lines if line["event"] == "answer"]
    swapped = next(line["sequence"] for line in heard.lines if line["event"] == "swapped")
    for line in answers:
        expected = heard.first if line["sequence"] < swapped else heard.second
        assert line["bundle_sha256"] == expected.sha256
    assert sorted(line["face"] for line in answers) == sorted([*WAYS, "page"] * 2)
    shadows = [line for line in heard.lines if line["event"] == "shadow"]
    seen = [line["answered"]["sequence"] for line in shadows]
    assert sorted(seen) == sorted(line["sequence"] for line in answers)
    assert {line["bundle_sha256"] for line in shadows} == {heard.shadow.sha256}
    for response in (*heard.before.values(), *heard.after.values()):
        assert heard.shadow.sha256 not in response.text + str(response.headers)
    assert heard.shadow.sha256[:16] not in "".join(heard.pages)


def test_counters_name_the_bundle_of_now_and_every_route_by_its_template(heard: Heard) -> None:
    assert f'bundle="{heard.second.sha256}"' in heard.metrics
    assert f'bundle="{heard.first.sha256}"' not in heard.metrics
    for way in WAYS.values():
        template = way.path.replace("/tiny/", "/{name}/")
        assert re.search(rf'triage_requests_total\{{[^}}]*route="{re.escape(template)}"', heard.metrics), (
            template
        )
    assert re.search(r'triage_requests_total\{[^}]*route="/ui/cases"', heard.metrics)
