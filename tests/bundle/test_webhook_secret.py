from __future__ import annotations

import base64

import pytest

from lesion_triage.bundle.webhook_secret import decode_secret, new_secret


def test_a_new_secret_is_one_and_no_two_are_alike():
    keys = {decode_secret(new_secret()) for _ in range(8)}
    assert {len(key or b"") for key in keys} == {32}
    assert len(keys) == 8


@pytest.mark.parametrize(("length", "taken"), [(0, False), (23, False), (24, True), (64, True), (65, False)])
def test_a_secret_has_24_to_64_bytes(length: int, taken: bool):
    key = bytes(range(length))
    assert decode_secret("whsec_" + base64.b64encode(key).decode()) == (key if taken else None)
