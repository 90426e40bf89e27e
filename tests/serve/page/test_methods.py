"""The page answers HEAD where it answers GET, and refuses other methods as a page that names those it has."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import httpx_60s
import tiny_bundle

REFERRED = tiny_bundle.picture_bytes("referred", "JPEG")
PATHS = (
    *("/ui", "/ui/", "/ui/pulse", "/ui/new", "/ui/cases", "/ui/read", "/ui/certificate", "/ui/login"),
    *("/ui/static/page.css", "/ui/static/none", "/ui/none", "/ui/session", "/ui/export", "/ui/logout"),
    *("/ui/cases/{number}", "/ui/cases/{number}/reading", "/ui/cases/{number}/photographs/0"),
    *("/ui/cases/2222-2222", "/ui/cases/{number}/photographs/9"),
)
ONLY_OF_A_REQUEST = ("x-request-id", "set-cookie", "content-length", "date")
"""Headers that differ between two requests for the same; a page's length too, by the ids in its forms."""


def headers_of(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in ONLY_OF_A_REQUEST}


@pytest.mark.parametrize("signed_in", [True, False])
def test_head_is_answered_as_get_is(signed_in: bool, browser: Any, browse: Any) -> None:
    number = browser.send_case(REFERRED)
    asking = browser if signed_in else browse(browser.app)
    for path in PATHS:
        told, asked = (asking.send(method, path.format(number=number)) for method in ("GET", "HEAD"))
        assert asked.status_code == told.status_code, path
        assert headers_of(asked) == headers_of(told), path


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/ui", "GET, HEAD"),
        ("/ui/login", "GET, HEAD, POST"),
        ("/ui/logout", "POST"),
        ("/ui/export", "POST"),
        ("/ui/cases", "GET, HEAD, POST"),
        ("/ui/cases/2222-2222", "GET, HEAD"),
        ("/ui/cases/2222-2222/outcome", "GET, HEAD, POST"),
        ("/ui/static/page.css", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("signed_in", [True, False])
def test_method_that_a_path_does_not_have_is_refused_by_a_page_that_names_those_it_has(
    path: str, allowed: str, signed_in: bool, browser: Any, browse: Any
) -> None:
    asking = browser if signed_in else browse(browser.app)
    asking.language = "de"
    wrong = {"DELETE", "PUT", "OPTIONS", "PROPFIND", "GET", "POST"} - set(allowed.split(", "))
    for method in sorted(wrong):
        if method == "GET" and not signed_in:
            continue  # is asked to sign in, as for every other address
        refused = asking.send(method, path, content=b"a=b" if method == "POST" else None)
        assert (refused.status_code, refused.headers["allow"]) == (405, allowed), method
        assert refused.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in refused.headers["content-security-policy"]
        assert "nichts wurde geändert" in refused.text


def test_no_method_finds_what_is_not_there(browser: Any) -> None:
    for method in ("GET", "POST", "DELETE"):
        refused = browser.send(method, "/ui/none")
        assert (refused.status_code, refused.headers["content-type"][:9]) == (404, "text/html"), method
        assert "allow" not in refused.headers


def test_outside_the_page_a_refusal_stays_a_problem_document(browser: Any) -> None:
    for method, path, allowed in (
        ("HEAD", "/v1/triage", "POST"),
        ("DELETE", "/v1/bundle", "GET, HEAD"),
        ("GET", "/uix", None),
    ):
        refused = browser.send(method, path)
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers.get("allow") == allowed
    assert browser.send("HEAD", "/v1/bundle").status_code == 200


def test_answer_to_head_has_no_body_on_the_wire(launch: Any, tmp_path: Any) -> None:
    with launch(TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server, httpx_60s.Client() as client:
        for path in ("/ui/login", "/ui", "/ui/static/page.css", "/ui/export"):
            asked = client.head(f"{server.url}{path}")
            assert asked.content == b""
            assert asked.headers.get("content-length", "0") == client.get(server.url + path).headers.get(
                "content-length", "0"
            )
        assert client.get(f"{server.url}/health/live").status_code == 200
