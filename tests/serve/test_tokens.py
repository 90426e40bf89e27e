"""Tokens of a site's identity provider: only those made by it, for this server, now, with the scope."""

from __future__ import annotations

import base64
import hmac
import http.server
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import httpx_60s
from identity_provider import AUDIENCE, ISSUER, Issuer
from lesion_triage.errors import ConfigError
from triage_server import tokens
from triage_server.tokens import KeySet, TokenVerifier

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def server(
    tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory, issuer: Issuer, start: Callable[..., Any]
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "jwks.json").write_text(json.dumps(issuer.document()))
    said = {"JWKS": str(folder / "jwks.json"), "ISSUER": ISSUER, "AUDIENCE": AUDIENCE}
    with start(
        tiny_bundle, folder, **{f"TRIAGE_JWT_{name}": value for name, value in said.items()}
    ) as running:
        yield running


def post(server: Any, picture: bytes, token: str) -> httpx.Response:
    headers = JPEG | {"Authorization": f"Bearer {token}"}
    return httpx_60s.post(f"{server.url}/v1/triage", content=picture, headers=headers)


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_token_of_the_issuer_lets_in(kind: str, server: Any, issuer: Issuer, draw: Any):
    assert post(server, draw(), issuer.token(kind)).status_code == 200
    assert post(server, draw(), issuer.token(kind, aud=["other", AUDIENCE])).status_code == 200
    assert post(server, draw(), issuer.token(kind, scope=None, scp=["triage:score"])).status_code == 200


NOW = int(time.time())


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW - 60},  # more than clocks may differ
        {"exp": None},
        {"nbf": NOW + 3600},
        {"iss": "https://other.example.org"},
        {"iss": None},
        {"aud": "another-server"},
        {"aud": None},
        {"sub": None},
        {"sub": 7},
        {"sub": "half a letter: \ud800"},
        {"exp": 10**400},
        {"kid": "unknown"},
        {"kid": "../../etc/passwd"},
    ],
)
def test_token_that_is_late_early_or_for_another_is_refused(
    changed: dict[str, Any], server: Any, issuer: Issuer, draw: Any
):
    refused = post(server, draw(), issuer.token(**changed))
    assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]


@pytest.mark.parametrize("scope", [None, "", "triage:scores", "openid", "TRIAGE:SCORE", 7])
def test_token_without_the_scope_is_not_allowed(scope: Any, server: Any, issuer: Issuer, draw: Any):
    refused = post(server, draw(), issuer.token(scope=scope))
    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]


def test_forged_token_is_refused(server: Any, issuer: Issuer, draw: Any):
    genuine = issuer.token()
    head, claims, signature = genuine.split(".")
    public = issuer.keys["RS256"].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    # The oldest forgeries: no algorithm; the public key taken for a shared secret; another's key.
    shared = part({"alg": "HS256", "typ": "JWT", "kid": "RS256"}) + "." + claims
    mac = base64.urlsafe_b64encode(hmac.digest(pem, shared.encode(), "sha256")).rstrip(b"=").decode()
    stranger = rsa.generate_private_key(65537, 2048)
    altered = json.loads(base64.urlsafe_b64decode(claims + "=="))
    for token in (
        part({"alg": "none", "kid": "RS256"}) + "." + claims + ".",
        f"{shared}.{mac}",
        issuer.token(key=stranger),
        f"{head}.{part(altered | {'sub': 'another'})}.{signature}",
        f"{head}.{claims}.",
        f"{head}.{claims}.{signature[:-2]}",
        issuer.token("ES256", kid="RS256"),
        genuine + "." + signature,
        genuine + "x" * 9000,
    ):
        assert post(server, draw(), token).status_code == 401
    assert post(server, draw(), genuine).status_code == 200


def test_subject_of_a_token_stands_nowhere_in_the_log(server: Any, issuer: Issuer, draw: Any):
    assert post(server, draw(), issuer.token()).status_code == 200
    lines = [json.loads(line) for line in server.text().splitlines() if line.startswith("{")]
    assert any(str(line.get("caller")).startswith("token:") for line in lines)
    assert "Mustermann" not in server.text()


# The key set


@contextmanager
def served(answers: list[bytes | int | float | str | None]) -> Iterator[tuple[str, list[int]]]:
    """A web server on loopback that gives one answer after the other, the last for ever.

    An answer is a body, a status, how many seconds lie between one blank and the next of an endless body, a
    name that a head without end holds again and again, or None: a head that takes four seconds to come.
    """
    asked = [0]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[min(asked[0], len(answers) - 1)]
            asked[0] += 1
            if isinstance(answer, int):
                self.send_response(answer)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                return
            self.send_response(200)
            for _ in range(20 if answer is None else 0):
                self.send_header("X-More", "to come")
                self.flush_headers()
                time.sleep(0.2)
            with suppress(OSError):
                while isinstance(answer, str):
                    self.send_header(answer, "to come")
                    self.flush_headers()
                    time.sleep(0.1)
            self.end_headers()
            with suppress(OSError):  # whoever asked has gone
                while isinstance(answer, float):
                    self.wfile.write(b" ")
                    time.sleep(answer)
                self.wfile.write(answer or b"")

        def log_message(self, *_: object) -> None: ...

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{site.server_port}/jwks", asked
    finally:
        site.shutdown()
        thread.join()
        site.server_close()


def named(key: jwt.PyJWK | None) -> str | None:
    return None if key is None else key.key_id


def test_new_key_of_the_issuer_is_found_without_a_restart(issuer: Issuer, monkeypatch: pytest.MonkeyPatch):
    import asyncio

    monkeypatch.setattr(tokens, "RETRY_S", 0.0)
    old = {"keys": issuer.document()["keys"][:1]}
    with served([json.dumps(old).encode(), json.dumps(issuer.document()).encode()]) as (address, asked):
        keys = KeySet(address)
        assert named(asyncio.run(keys.get_key("ES256"))) == "ES256"
        assert asked == [2]


@pytest.mark.parametrize("kind", ["RS256", "ES256"])
def test_key_replaced_under_its_id_is_found_without_a_restart(
    kind: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
):
    import asyncio

    monkeypatch.setattr(tokens, "RETRY_S", 0.0)
    later = Issuer()
    replaced = next(one for one in later.document()["keys"] if one["kid"] == kind)
    answers = [issuer.document(), {"keys": [replaced | {"kid": "RS256"}]}]  # also with another algorithm
    with served([json.dumps(answer).encode() for answer in answers]) as (address, asked):
        verifier = TokenVerifier(address, ISSUER, AUDIENCE)
        assert asyncio.run(verifier.verify(issuer.token())) is not None
        assert asked == [1]
        assert asyncio.run(verifier.verify(later.token(kind, kid="RS256"))) is not None
        assert asyncio.run(verifier.verify(issuer.token())) is None


def test_forged_tokens_do_not_flood_the_issuer(issuer: Issuer):
    import asyncio

    async def many() -> None:
        for _ in range(20):
            assert await verifier.verify(forged) is None

    forged = Issuer().token()
    with served([json.dumps(issuer.document()).encode()]) as (address, asked):
        verifier = TokenVerifier(address, ISSUER, AUDIENCE)
        asyncio.run(many())
        assert asked == [1]


def test_invented_key_ids_do_not_flood_the_issuer(issuer: Issuer):
    import asyncio

    async def many() -> None:
        for number in range(50):
            assert await keys.get_key(f"invented-{number}") is None

    with served([json.dumps(issuer.document()).encode()]) as (address, asked):
        keys = KeySet(address)
        asyncio.run(many())
        assert asked == [1]


def test_issuer_that_is_down_is_believed_for_an_hour(issuer: Issuer, monkeypatch: pytest.MonkeyPatch):
    import asyncio

    from triage_server.problems import RequestError

    monkeypatch.setattr(tokens, "RETRY_S", 0.0)
    monkeypatch.setattr(tokens, "REFRESH_S", 0.0)
    with served([json.dumps(issuer.document()).encode(), 500]) as (address, _):
        keys = KeySet(address)
        assert asyncio.run(keys.get_key("RS256")) is not None
        monkeypatch.setattr(tokens, "STALE_S", 0.0)
        with pytest.raises(RequestError) as refusal:
            asyncio.run(keys.get_key("RS256"))
    assert refusal.value.code == "authentication_unavailable"


def weak() -> dict[str, Any]:
    key = rsa.generate_private_key(65537, 1024).public_key()
    return dict(jwt.get_algorithm_by_name("RS256").to_jwk(key, as_dict=True))  # type: ignore[call-overload]


NO_ALGORITHM = {"kty": "RSA", "alg": "none", "n": "AQAB", "e": "AQAB"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("no json", "not a JWKS document"),
        ("{}", "not a JWKS document"),
        ('{"keys": []}', "no public key"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "no public key"),
        (json.dumps({"keys": [weak()]}), "1024 bits"),
        (json.dumps({"keys": [NO_ALGORITHM]}), "key 1 of the set is of an unsupported kind"),
    ],
)
def test_set_without_a_usable_key_is_refused(document: str, said: str, tmp_path: Path):
    (tmp_path / "set").write_text(document)
    with pytest.raises(ConfigError, match=said):
        KeySet(str(tmp_path / "set"))


def test_set_is_fetched_over_https_only_and_no_redirect_is_followed():
    with pytest.raises(ConfigError, match="expected https"):
        KeySet("http://id.example.org/jwks")
    with served([302]) as (address, _), pytest.raises(ConfigError, match="cannot be read"):
        KeySet(address)


def test_provider_that_drips_is_given_up_in_time_and_holds_nobody_up_whose_key_is_known(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
):
    import asyncio

    monkeypatch.setattr(tokens, "_FETCH_TIMEOUT_S", 0.6)

    async def story() -> tuple[float, float]:
        began = time.monotonic()
        for _ in range(20):
            assert named(await keys.get_key("RS256")) == "RS256"
            assert await keys.is_fresh()
        known = time.monotonic() - began
        assert await keys.get_key("invented") is None
        return known, time.monotonic() - began

    with served([json.dumps(issuer.document()).encode(), 0.1]) as (address, asked):
        keys = KeySet(address)
        monkeypatch.setattr(tokens, "RETRY_S", 0.0)
        monkeypatch.setattr(tokens, "REFRESH_S", 0.0)
        known, unknown = asyncio.run(story())
        assert known < 0.4
        assert unknown < 3.0
        assert asked[0] >= 2
    with served([0.1]) as (address, _), pytest.raises(ConfigError, match=r"did not arrive within 0\.6 s"):
        KeySet(address)


STRANGE = {"kty": "AKP", "alg": "ML-DSA-65", "kid": "later", "use": "sig", "pub": "AAAA"}


def test_keys_that_cannot_be_used_are_left_out_one_by_one_and_named_in_the_log(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import asyncio

    monkeypatch.setattr(tokens, "RETRY_S", 0.0)
    whole = issuer.document()
    mixed = {"keys": [STRANGE, weak() | {"kid": "weak"}, "no key", NO_ALGORITHM, *whole["keys"]]}
    first = {"keys": whole["keys"][:1]}
    with served([json.dumps(first).encode(), json.dumps(mixed).encode()]) as (address, _):
        keys = KeySet(address)
        assert named(asyncio.run(keys.get_key("ES256"))) == "ES256"
        for name in ("weak", "later"):
            assert asyncio.run(keys.get_key(name)) is None
    said = [record.getMessage() for record in caplog.records if "is skipped" in record.getMessage()]
    assert [re.search(r"key (\d) of the set", line)[1] for line in said] == ["1", "2", "3", "4"]  # type: ignore[index]
    assert "1024 bits" in said[1]


@pytest.mark.parametrize("kid", [{}, {"kid": "2026"}], ids=["no kid", "one kid"])
def test_key_that_cannot_be_told_from_an_earlier_one_is_left_out_and_named_in_the_log(
    kid: dict[str, str], issuer: Issuer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    import asyncio

    same = [
        {name: value for name, value in one.items() if name != "kid"} for one in issuer.document()["keys"]
    ]
    (tmp_path / "set").write_text(json.dumps({"keys": [one | kid for one in same[:2]]}))
    key = asyncio.run(KeySet(str(tmp_path / "set")).get_key(kid.get("kid")))
    assert key is not None
    assert key.algorithm_name == "RS256"
    (line,) = (record.getMessage() for record in caplog.records if "is skipped" in record.getMessage())
    assert "key 2 of the set has the same kid as an earlier key" in line


def test_start_that_fails_does_not_print_what_the_address_asks_for():
    with served([500, b"{}"]) as (address, _):
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"^TRIAGE_JWT_JWKS: ") as caught:
                KeySet(f"{address}?word=secret")
            assert "secret" not in str(caught.value)


def test_each_reading_that_fails_is_logged_without_what_the_address_asks_for(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import asyncio

    monkeypatch.setattr(tokens, "RETRY_S", 0.0)
    with served([json.dumps(issuer.document()).encode(), 500]) as (address, _):
        keys = KeySet(f"{address}?word=secret")
        for _ in range(2):
            assert asyncio.run(keys.get_key("invented")) is None
    said = [
        record.getMessage() for record in caplog.records if "could not be refreshed" in record.getMessage()
    ]
    assert len(said) == 2
    assert all("500" in line and "secret" not in line for line in said)


def test_provider_whose_head_drips_is_given_up_in_time_and_asked_again(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import asyncio

    from triage_server.problems import RequestError

    for name, seconds in {"_FETCH_TIMEOUT_S": 1.0, "RETRY_S": 0.0, "STALE_S": 0.2}.items():
        monkeypatch.setattr(tokens, name, seconds)

    async def story() -> float:
        await asyncio.sleep(0.3)
        began = time.monotonic()
        with pytest.raises(RequestError) as refusal:
            await keys.get_key("RS256")
        took = time.monotonic() - began
        assert refusal.value.code == "authentication_unavailable"
        assert named(await keys.get_key("RS256")) == "RS256"
        return took

    document = json.dumps(issuer.document()).encode()
    with served([document, None, document]) as (address, asked):
        keys = KeySet(address)
        assert 0.5 < asyncio.run(story()) < 1.8
    assert asked == [3]
    assert any("could not be refreshed" in record.getMessage() for record in caplog.records)


def test_provider_whose_head_never_ends_is_let_go_and_asked_once_at_a_time(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
):
    import asyncio

    for name, seconds in {"_FETCH_TIMEOUT_S": 0.5, "RETRY_S": 0.0}.items():
        monkeypatch.setattr(tokens, name, seconds)

    async def story() -> None:
        for _ in range(3):
            await asyncio.gather(*(keys.get_key("invented") for _ in range(5)))

    before = threading.active_count()
    with served([json.dumps(issuer.document()).encode(), "X-Endless"]) as (address, asked):
        keys = KeySet(address)
        asyncio.run(story())
        assert 2 <= asked[0] <= 4
        for _ in range(50):
            if threading.active_count() <= before + 1:  # that of the web server, which has been left by all
                break
            time.sleep(0.1)
        assert threading.active_count() <= before + 1


def test_start_does_not_wait_for_a_provider_whose_head_never_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "_FETCH_TIMEOUT_S", 0.5)
    began = time.monotonic()
    with (
        served(["X-Endless"]) as (address, _),
        pytest.raises(ConfigError, match="did not arrive within"),
    ):
        KeySet(address)
    assert time.monotonic() - began < 3


HASTY = """
import sys
from triage_server import cli, tokens
tokens.RETRY_S = 0.2
sys.exit(cli.main(sys.argv[sys.argv.index("--bundle"):]))
"""
"""Begins the line of a server that asks its provider again much sooner than after ten seconds."""


def test_stop_does_not_wait_for_a_provider_that_drips(issuer: Issuer, launch: Callable[..., Any], draw: Any):
    with served([json.dumps(issuer.document()).encode(), "X-Endless"]) as (address, asked):
        said = {"JWKS": address, "ISSUER": ISSUER, "AUDIENCE": AUDIENCE}
        variables = {f"TRIAGE_JWT_{name}": value for name, value in said.items()}
        with launch(under=(sys.executable, "-W", "error", "-c", HASTY), **variables) as server:
            time.sleep(0.2)
            headers = {"Authorization": f"Bearer {issuer.token(kid='unknown')}"}
            assert httpx.get(f"{server.url}/v1/bundle", headers=headers, timeout=30).status_code == 401
            assert asked == [2]
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 5


def test_keys_that_are_too_old_make_the_server_not_ready_until_they_are_read(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, make_app: Any, ask: Any
):
    document = json.dumps(issuer.document()).encode()
    with served([document, 500, document]) as (address, _):
        app = make_app(jwt_jwks=address, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
        assert ask(app, "GET", "/health/ready").status_code == 200
        monkeypatch.setattr(tokens, "RETRY_S", 0.0)
        monkeypatch.setattr(tokens, "STALE_S", 0.2)
        time.sleep(0.3)
        refused = ask(app, "GET", "/health/ready")
        assert (refused.status_code, refused.json()["code"]) == (503, "authentication_unavailable")
        assert ask(app, "GET", "/health/ready").status_code == 200  # nobody else asked
