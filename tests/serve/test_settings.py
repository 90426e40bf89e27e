from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_triage.errors import ConfigError
from triage_server.settings import Settings, load, refuse_beyond_loopback, variables


def test_defaults_listen_on_this_machine_only():
    settings = load(["--bundle", "b"], {})
    assert (settings.host, settings.port, settings.bundle) == ("127.0.0.1", 8080, Path("b"))


def test_command_line_stands_above_environment():
    settings = load(["--bundle", "b", "--port", "1"], {"TRIAGE_PORT": "2", "TRIAGE_THREADS": "3"})
    assert (settings.port, settings.threads) == (1, 3)


def test_every_setting_has_its_variable():
    assert set(variables().values()) == set(Settings.model_fields)
    assert load([], {"TRIAGE_BUNDLE": "b", "TRIAGE_MAX_BODY_BYTES": "10"}).max_body_bytes == 10


def test_misspelt_variable_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"TRIAGE_BUNDEL; did you mean TRIAGE_BUNDLE\?"):
        load(["--bundle", "b"], {"TRIAGE_BUNDEL": "x"})


def test_variables_of_others_are_left_alone():
    assert load(["--bundle", "b"], {"PORT": "x", "MY_TRIAGE_PORT": "y"}).port == 8080


@pytest.mark.parametrize(
    "wrong",
    [{"TRIAGE_PORT": "seventy"}, {"TRIAGE_PORT": "70000"}, {"TRIAGE_THREADS": "0"}, {"TRIAGE_QUEUE": ""}],
)
def test_value_out_of_range_is_refused_by_name(wrong: dict[str, str]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        load(["--bundle", "b"], wrong)


def test_flag_out_of_range_is_refused_by_name():
    with pytest.raises(ConfigError, match="--workers-threads"):
        load(["--bundle", "b", "--workers-threads", "0"], {})


def test_no_bundle_is_refused():
    with pytest.raises(ConfigError, match="TRIAGE_BUNDLE"):
        load([], {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_accepted(host: str):
    refuse_beyond_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.0.1", "localhost.example.org", "127.0.0.1.nip.io"]
)
def test_any_other_host_is_refused(host: str):
    with pytest.raises(ConfigError, match="authentication"):
        load(["--bundle", "b", "--host", host], {})


@given(st.ip_addresses(v=4))
def test_no_address_off_this_machine_is_ever_accepted(address):
    if str(address).startswith("127."):
        return
    with pytest.raises(ConfigError):
        refuse_beyond_loopback(str(address))
