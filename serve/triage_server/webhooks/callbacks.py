"""The callbacks that the operator configured: address, secrets, and who may ask for each.

Imports pydantic, the format of a secret, the exceptions and the rule of loopback. No address, and no part of
one, ever comes from a request.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from lesion_triage.bundle.webhook_secret import MAX_BYTES, MIN_BYTES, PREFIX, decode_secret
from lesion_triage.errors import ConfigError
from triage_server.loopback import is_loopback

_MAX_SECRETS = 4

CallbackName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


class _CallbackConfig(BaseModel):
    """One callback as the operator writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str
    secret_file: Path | None = None
    secret_env: str | None = None
    ca_file: Path | None = None
    callers: tuple[str, ...] | None = Field(default=None, min_length=1)


@dataclass(frozen=True, slots=True)
class Callback:
    """One destination for answers."""

    name: str
    host: str
    port: int
    target: str
    """Path and query."""
    tls: ssl.SSLContext | None
    """None: plain http, on loopback only."""
    secrets: tuple[bytes, ...]
    """The first encrypts and signs. Older ones also sign, and decrypt what they encrypted when first."""
    callers: frozenset[str] | None
    """Callers who may ask for it, by their names in the audit log; None: everyone who may score."""

    def allows(self, caller: str) -> bool:
        """Whether this caller may have answers delivered here."""
        return self.callers is None or caller in self.callers


class Callbacks:
    """All callbacks, by name."""

    def __init__(self, by_name: Mapping[str, Callback]) -> None:
        self.by_name = dict(by_name)

    @classmethod
    def read(cls, config: str, environment: Mapping[str, str] = os.environ) -> Callbacks:
        """Read the configuration.

        Args:
            config: path of a JSON file, or the JSON object itself.
            environment: where secrets may be.

        Raises:
            ConfigError: unreadable or malformed, an address that is not allowed, no usable secret, or a
                secret file that everyone may read or write.
        """
        source = "TRIAGE_WEBHOOKS"
        if not config.lstrip().startswith("{"):
            source = config
            try:
                config = Path(config).read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
            except (OSError, ValueError) as error:
                raise ConfigError(f"{source}: the callbacks cannot be read ({error}).") from None
        try:
            tree = json.loads(config, object_pairs_hook=_unique)
            found = TypeAdapter(dict[CallbackName, _CallbackConfig]).validate_python(tree)
        except ValidationError as error:
            problem = error.errors(include_input=False)[0]
            place = ".".join(str(step) for step in problem["loc"]) or "the whole"
            raise ConfigError(
                f"{source}: {place}: {problem['msg']}; expected an object of callbacks by name, each with "
                "'url', 'secret_file' or 'secret_env' and, optionally, 'ca_file' and 'callers'."
            ) from None
        except ValueError as error:
            raise ConfigError(f"{source}: not valid JSON ({error}).") from None
        if not found:
            raise ConfigError(f"{source}: no callback is named; name one, or unset TRIAGE_WEBHOOKS.")
        return cls({name: _callback(source, name, one, environment) for name, one in found.items()})

    def for_caller(self, caller: str) -> list[Callback]:
        """The callbacks that this caller may ask for."""
        return [one for one in self.by_name.values() if one.allows(caller)]


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Signature of a message after the Standard Webhooks specification 1.0.0: over id, time and body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys differ: of two callbacks with one name, the last would get both their answers."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _callback(source: str, name: str, config: _CallbackConfig, environment: Mapping[str, str]) -> Callback:
    where = f"{source}: callback '{name}'"
    if not re.fullmatch(r"[!-~]+", config.url):
        raise ConfigError(
            f"{where}: the address has characters that are not allowed in one; percent-encode them (%xx)."
        )
    try:
        address = urlsplit(config.url)
        host, port = address.hostname, address.port
    except ValueError:
        host = None
    if not host or address.username is not None or address.fragment:
        raise ConfigError(
            f"{where}: expected an address such as https://host/path, without user or fragment."
        )
    if address.scheme != "https" and not (address.scheme == "http" and is_loopback(host)):
        raise ConfigError(f"{where}: expected https; plain http is allowed only to this machine.")
    tls = None
    if address.scheme == "https":
        try:
            tls = ssl.create_default_context(cafile=config.ca_file)
        except OSError as error:
            raise ConfigError(f"{where}: 'ca_file' cannot be used ({error.strerror}).") from None
    return Callback(
        name=name,
        host=host,
        port=port or (80 if tls is None else 443),
        target=(address.path or "/") + (f"?{address.query}" if address.query else ""),
        tls=tls,
        secrets=_secrets(where, config, environment),
        callers=None if config.callers is None else frozenset(config.callers),
    )


def _secrets(where: str, config: _CallbackConfig, environment: Mapping[str, str]) -> tuple[bytes, ...]:
    if (config.secret_file is None) == (config.secret_env is None):
        raise ConfigError(f"{where}: expected exactly one of 'secret_file' and 'secret_env'.")
    if config.secret_file is not None:
        try:
            mode = config.secret_file.stat().st_mode
            words = config.secret_file.read_text(encoding="ascii").split()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{where}: its secret cannot be read ({type(error).__name__}).") from None
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConfigError(
                f"{where}: {config.secret_file}: any user of this machine may read or write it, and so forge "
                "deliveries; run chmod o-rw on it or, if it is mounted, set 'defaultMode: 0440' with "
                "'fsGroup' in Kubernetes, 'mode: 0440' with 'gid' in Swarm."
            )
    else:
        words = environment.get(config.secret_env or "", "").split()
    found = [decode_secret(word) for word in words]
    keys = tuple(key for key in found if key is not None)
    if not 1 <= len(keys) <= _MAX_SECRETS or len(keys) < len(found):
        raise ConfigError(
            f"{where}: expected 1 to {_MAX_SECRETS} secrets, the newest first, each {PREFIX} followed by "
            f"{MIN_BYTES} to {MAX_BYTES} bytes in base64; 'triage-server webhooks secret' creates one."
        )
    return keys
