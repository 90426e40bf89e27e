from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_triage.errors import ConfigError
from triage_server.settings import Settings, load, refuse_exposure, variables


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
    [
        {"TRIAGE_PORT": "seventy"},
        {"TRIAGE_PORT": "70000"},
        {"TRIAGE_THREADS": "0"},
        {"TRIAGE_QUEUE": ""},
        *(
            {"TRIAGE_READING_QUEUE_FOLLOW_UP_SHARE": share}
            for share in ("-0.01", "1.01", "nan", "10%", "0,1")
        ),
    ],
)
def test_value_out_of_range_is_refused_by_name(wrong: dict[str, str]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        load(["--bundle", "b"], wrong)


@pytest.mark.parametrize("variable", sorted(variables()))
def test_empty_variable_is_refused_by_name(variable: str):
    with pytest.raises(ConfigError, match=f"^{variable} is empty: "):
        load(["--bundle", "b"], {variable: ""})


@pytest.mark.parametrize("flag", ["--bundle", "--ready-file"])
def test_empty_path_is_refused(flag: str):
    with pytest.raises(ConfigError, match=f"^{flag} is empty: "):
        load(["--bundle", "b", flag, ""], {})


def test_flag_out_of_range_is_refused_by_name():
    with pytest.raises(ConfigError, match="--workers-threads"):
        load(["--bundle", "b", "--workers-threads", "0"], {})


def test_no_bundle_is_refused():
    with pytest.raises(ConfigError, match="TRIAGE_BUNDLE"):
        load([], {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_accepted(host: str):
    assert load(["--bundle", "b", "--host", host], {}).host == host


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.0.1", "localhost.example.org", "127.0.0.1.nip.io"]
)
def test_any_other_host_is_refused_without_authentication(host: str):
    with pytest.raises(ConfigError, match="authentication"):
        load(["--bundle", "b", "--host", host], {})


@given(st.ip_addresses())
def test_no_address_off_this_machine_is_ever_accepted_without_authentication(address):
    if str(address).startswith("127.") or str(address) == "::1":
        return
    with pytest.raises(ConfigError):
        refuse_exposure(Settings(bundle=Path("b")), str(address))


KEYS = {"TRIAGE_API_KEYS_FILE": "keys"}
TOKENS = {"TRIAGE_JWT_JWKS": "set", "TRIAGE_JWT_ISSUER": "i", "TRIAGE_JWT_AUDIENCE": "a"}
TLS = {"TRIAGE_TLS_CERT": "cert", "TRIAGE_TLS_KEY": "key"}


@pytest.mark.parametrize("known", [KEYS, TOKENS])
def test_network_is_served_with_authentication_and_encryption_only(known: dict[str, str]):
    for encrypted in (TLS, {"TRIAGE_BEHIND_TLS_PROXY": "1"}):
        assert load(["--bundle", "b", "--host", "0.0.0.0"], known | encrypted).host == "0.0.0.0"
    with pytest.raises(ConfigError, match="without encryption"):
        load(["--bundle", "b", "--host", "0.0.0.0"], known)
    with pytest.raises(ConfigError, match="without authentication"):
        load(["--bundle", "b", "--host", "0.0.0.0"], TLS)


def test_proxy_that_authenticates_is_taken_at_the_operator_s_word():
    proxy = {"TRIAGE_BEHIND_AUTHENTICATING_PROXY": "1"}
    assert load(["--bundle", "b", "--host", "0.0.0.0"], proxy).behind_authenticating_proxy


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_proxy_brings_callers_from_beyond_loopback_and_somebody_has_to_recognise_them(host: str):
    line, proxy = ["--bundle", "b", "--host", host], {"TRIAGE_BEHIND_TLS_PROXY": "1"}
    with pytest.raises(ConfigError, match="TRIAGE_BEHIND_AUTHENTICATING_PROXY=1 if the proxy"):
        load(line, proxy)
    for known in (KEYS, TOKENS, {"TRIAGE_BEHIND_AUTHENTICATING_PROXY": "1"}):
        assert load(line, proxy | known).behind_tls_proxy


@pytest.mark.parametrize(
    ("half", "missing"),
    [
        ({"TRIAGE_JWT_JWKS": "set"}, "TRIAGE_JWT_ISSUER, TRIAGE_JWT_AUDIENCE"),
        ({"TRIAGE_JWT_AUDIENCE": "a"}, "TRIAGE_JWT_JWKS, TRIAGE_JWT_ISSUER"),
        ({"TRIAGE_TLS_CERT": "cert"}, "TRIAGE_TLS_KEY"),
    ],
)
def test_half_a_setting_is_refused(half: dict[str, str], missing: str):
    with pytest.raises(ConfigError, match=f"{missing} is not"):
        load(["--bundle", "b"], half)


def test_trust_that_is_unsaid_is_refused():
    with pytest.raises(ConfigError, match="contradict each other"):
        load(["--bundle", "b"], {"TRIAGE_TRUSTED_KEYS": "keys", "TRIAGE_ALLOW_UNSIGNED": "1"})


@pytest.mark.parametrize("word", ["secret", "p/secret", "p?secret", "p#secret", "p@secret", "p[secret"])
def test_password_in_the_address_of_a_key_set_is_refused_and_not_repeated(word: str):
    said = {"ISSUER": "i", "AUDIENCE": "a", "JWKS": f"https://svc:{word}@id.example.org/jwks"}
    with pytest.raises(ConfigError, match="TRIAGE_JWT_JWKS: expected an address without user") as caught:
        load(["--bundle", "b"], {f"TRIAGE_JWT_{name}": value for name, value in said.items()})
    assert "secret" not in str(caught.value)
    assert "svc" not in str(caught.value)
    for good in ("https://id:8443/jwks?mail=a@b", "https://[::1]/jwks", "/srv/a@b/set"):
        load(["--bundle", "b"], {f"TRIAGE_JWT_{n}": v for n, v in {**said, "JWKS": good}.items()})
