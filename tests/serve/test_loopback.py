"""Who counts as this machine, at each of the three doors that ask."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_triage.errors import ConfigError
from triage_server.loopback import is_loopback
from triage_server.settings import Settings, refuse_exposure
from triage_server.tokens import KeySet
from triage_server.webhooks.callbacks import Callbacks

HERE = ("localhost", "127.0.0.1", "127.8.8.8", "127.255.255.255", "::1", "0:0:0:0:0:0:0:1")
NAMES = ("", "localhost.", "LOCALHOST", "localhost.localdomain", "ip6-localhost", "127.0.0.1.nip.io")
SPELLINGS = ("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.01", "[::1]", "127.0.0.1%lo")
ADDRESSES = ("0.0.0.0", "::", "10.0.0.1", "126.255.255.255", "128.0.0.1", "::2", "fe80::1", "::7f00:1")
MAPPED = ("::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1")
ELSEWHERE = (*NAMES, *SPELLINGS, *ADDRESSES, *MAPPED)


@pytest.mark.parametrize("host", HERE)
def test_loopback_is_this_machine(host: str):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_no_other_name_and_no_other_spelling_is(host: str):
    assert not is_loopback(host)


@given(st.ip_addresses())
def test_of_all_addresses_the_net_127_and_one_other_are(address):
    assert is_loopback(str(address)) == (
        address.packed[0] == 127 if address.version == 4 else int(address) == 1
    )


@given(st.integers(0, 2**32 - 1))
def test_no_mapped_address_is(address: int):
    assert not is_loopback(f"::ffff:{address >> 16:x}:{address & 0xFFFF:x}")


@pytest.mark.parametrize("host", ["localhost.", "10.0.0.1", "::ffff:127.0.0.1"])
def test_all_three_doors_hold_to_it(host: str):
    written = f"[{host}]" if ":" in host else host
    with pytest.raises(ConfigError, match="without authentication"):
        refuse_exposure(Settings(bundle=Path("b")), host)
    with pytest.raises(ConfigError, match="expected https"):
        KeySet(f"http://{written}/jwks")
    said = json.dumps({"ehr": {"url": f"http://{written}/", "secret_env": "SECRET"}})
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    with pytest.raises(ConfigError, match="expected https"):
        Callbacks.read(said, {"SECRET": secret})
    assert Callbacks.read(said.replace(written, "[::1]"), {"SECRET": secret}).by_name["ehr"].host == "::1"
