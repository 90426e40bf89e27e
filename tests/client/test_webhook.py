"""What a receiver of callbacks believes, and what it does not."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable

import pytest

from lesion_triage.bundle.scorer import Scorer
from triage_client import ForgedError, verify_webhook

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NOW = 1_760_000_000
NUMBER = "case_5f3b"

Made = Callable[..., tuple[bytes, dict[str, str]]]


@pytest.fixture
def made(tiny_bundle: object, picture_bytes: Callable[..., bytes]) -> Made:
    answer = Scorer.open(tiny_bundle).score([picture_bytes("below")]).model_dump(mode="json")  # type: ignore[arg-type]

    def one(moment: int = NOW, key: bytes = KEY, **changes: object) -> tuple[bytes, dict[str, str]]:
        data = {"case_id": NUMBER, "request_id": "r", "audit_hash": None, "answer": answer}
        message = {"type": "case.answered", "timestamp": "2026-01-31T12:00:00.000Z", "data": data}
        body = json.dumps(message | changes).encode()
        digest = hmac.new(key, f"{NUMBER}.{moment}.".encode() + body, "sha256").digest()
        signed = "v1," + base64.b64encode(digest).decode()
        return body, {"webhook-id": NUMBER, "webhook-timestamp": str(moment), "webhook-signature": signed}

    return one


def test_delivery_that_is_signed_now_is_read(made: Made):
    body, headers = made()
    for secrets in (SECRET, SECRET.removeprefix("whsec_"), ["whsec_" + "AAAA" * 8, SECRET]):
        assert verify_webhook(body, headers, secrets, now=NOW).case_id == NUMBER
    shouted = {name.title(): value for name, value in headers.items()}
    assert verify_webhook(body, shouted, SECRET, now=NOW + 299).answer.disposition == "below_threshold"
    several = headers | {"webhook-signature": f"v1,AAAA v1a,xyz {headers['webhook-signature']} v2,b"}
    assert verify_webhook(body, several, SECRET, now=NOW - 299).case_id == NUMBER


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"webhook-timestamp": str(NOW + 1)}, "not signed"),
        ({"webhook-id": "case_0000"}, "not signed"),
        ({"webhook-signature": "v1,"}, "not signed"),
        ({"webhook-signature": ""}, "not signed"),
        ({"webhook-timestamp": "now"}, "no time"),
        ({"webhook-timestamp": ""}, "no time"),
        ({"webhook-timestamp": "\u0661"}, "no time"),
    ],
)
def test_forged_heads_are_refused(change: dict[str, str], sentence: str, made: Made):
    body, headers = made()
    with pytest.raises(ForgedError, match=sentence):
        verify_webhook(body, headers | change, SECRET, now=NOW)


def test_every_altered_byte_is_found(made: Made):
    body, headers = made()
    for place in range(0, len(body), 97):
        altered = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        with pytest.raises(ForgedError, match="not signed"):
            verify_webhook(altered, headers, SECRET, now=NOW)


def test_delivery_that_is_sent_again_later_is_refused(made: Made):
    body, headers = made()
    for now in (NOW + 301, NOW - 301):
        with pytest.raises(ForgedError, match="300 seconds"):
            verify_webhook(body, headers, SECRET, now=now)
    with pytest.raises(ForgedError, match="300 seconds"):
        verify_webhook(body, headers, SECRET)  # by the clock


def test_stranger_s_secret_and_another_message_are_refused(made: Made):
    with pytest.raises(ForgedError, match="not signed"):
        verify_webhook(*made(key=bytes(32)), SECRET, now=NOW)
    with pytest.raises(ForgedError, match="cannot be read by this version"):
        verify_webhook(*made(type="case.deleted"), SECRET, now=NOW)
    other = {
        "case_id": "case_0000",
        **{name: json.loads(made()[0])["data"][name] for name in ("request_id", "audit_hash", "answer")},
    }
    with pytest.raises(ForgedError, match="two cases"):
        verify_webhook(*made(data=other), SECRET, now=NOW)


@pytest.mark.parametrize("key", [b"", b"short", bytes(23), bytes(65)], ids=len)
def test_a_secret_that_the_server_would_not_take_proves_nothing(key: bytes, made: Made):
    weak = "whsec_" + base64.b64encode(key).decode()
    for secrets in (weak, weak.removeprefix("whsec_"), [weak], [SECRET, weak]):
        with pytest.raises(ForgedError, match="24 to 64 bytes in base64"):
            verify_webhook(*made(key=key), secrets, now=NOW)


@pytest.mark.parametrize("secret", ["whsec_ä", "whsec_AAA", "whsec_" + "AAAA" * 8 + "\n"])
def test_a_secret_that_is_no_base64_is_named(secret: str, made: Made):
    with pytest.raises(ForgedError, match="24 to 64 bytes in base64"):
        verify_webhook(*made(), secret, now=NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-signature"])
def test_bytes_that_are_no_letters_are_a_forgery_and_no_crash(name: str, made: Made):
    body, headers = made()
    with pytest.raises(ForgedError, match="not signed"):
        verify_webhook(body, headers | {name: "v1,\udce9"}, SECRET, now=NOW)
