"""The operator's settings: command line first, then ``TRIAGE_*`` variables, then the defaults below.

Imports pydantic, the exceptions and the rule of loopback.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, SecretStr, ValidationError, field_validator

from lesion_triage.errors import ConfigError
from triage_server.loopback import is_loopback

PREFIX = "TRIAGE_"
MOST_KEEP_HOURS = 8760
"""A year; the upper limit of ``webhook_keep_hours``."""

_FLAGS = {
    "bundle": "--bundle",
    "host": "--host",
    "port": "--port",
    "threads": "--workers-threads",
    "ready_file": "--ready-file",
}
Seconds = Annotated[FiniteFloat, Field(gt=0)]


class Settings(BaseModel):
    """Everything the server reads besides the bundle. ``max_body_bytes`` is ``TRIAGE_MAX_BODY_BYTES``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path
    """Folder of the sealed bundle to serve, or a link to it, which may be changed while the server runs."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback only with authentication and encryption."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0 takes any free port; the ready line says which."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Cases scored at once. None: as many as the processors this process may use."""
    queue: int = Field(default=64, ge=0)
    """Cases that may be received or wait beside those being scored; one more is answered 503."""
    max_body_bytes: int = Field(default=64 * 2**20, ge=1)
    """A longer request is refused: before it is read if it announces its length, else at the limit."""
    max_pending_bytes: int = Field(default=512 * 2**20, ge=1)
    """Photographs held in memory at once, over all requests; beyond it the answer is 503."""
    body_timeout_s: Seconds = 60.0
    """A request body that has not arrived whole by then is answered 408. A connection whose client takes
    nothing of its answer for as long is closed."""
    answer_timeout_s: Seconds = 120.0
    """A case that has arrived and is not scored by then is answered 503."""
    drain_timeout_s: int = Field(default=30, ge=1)
    """After SIGTERM or SIGINT, how long cases under way may take to finish."""
    language: str = "en"
    """Language of an answer if the request asks for none, or for one that is not available."""
    shadow_bundles: tuple[Path, ...] = ()
    """Folders of bundles that score the same cases after the answer, for the audit log and metrics only."""
    shadow_queue: int = Field(default=64, ge=1)
    """Cases that may wait for the shadows; one more is not scored by them, and counted."""
    catalogues: Path | None = None
    """Folder of the site's own message catalogues; see docs/messages.md."""
    trusted_keys: Path | None = None
    """Public key, or folder of them: only a bundle signed by one of their owners is served."""
    allow_unsigned: bool = False
    """Serve a bundle without knowing who made it."""
    api_keys_file: Path | None = None
    """API keys of the platforms; see ``triage-server keys``."""
    jwt_jwks: str | None = None
    """Path or https address of the key set (JWKS) that tokens are verified with."""
    jwt_issuer: str | None = None
    """``iss`` that every token must have."""
    jwt_audience: str | None = None
    """``aud`` that every token must have: this server and no other."""
    jwt_scope: str = Field(default="triage:score", min_length=1)
    """Scope of a token that may score."""
    jwt_clinic_scope: str = Field(default="triage:clinic", min_length=1)
    """Scope of a token that opens the page; for a person, not for a platform."""
    rate_per_minute: int = Field(default=600, ge=1)
    """Requests of one key, or one subject of tokens; each case of a batch counts. More are answered 429."""
    tls_cert: Path | None = None
    """PEM certificate chain, if the server itself terminates TLS."""
    tls_key: Path | None = None
    """Its private key, unencrypted."""
    behind_tls_proxy: bool = False
    """A proxy terminates TLS, and this server is reached through it only. Requires authentication: the proxy
    brings callers from beyond loopback."""
    behind_authenticating_proxy: bool = False
    """A proxy authenticates callers, and this server is reached through it only."""
    audit_log: Path | None = None
    """Folder of the audit log."""
    audit_rotate_bytes: int = Field(default=64 * 2**20, ge=4096)
    """An audit file that has reached this size is followed by another."""
    reading_queue: SecretStr | None = None
    """Database of the page's reading queue: an SQLite file, or postgresql://... None: there is no page."""
    reading_queue_keep_days: int = Field(default=90, ge=1, le=3650)
    """A case that was read is deleted this many days after its last reading or outcome."""
    reading_queue_follow_up_share: FiniteFloat = Field(default=0.0, ge=0, le=1)
    """Each case that arrives on the page is drawn for follow-up with this probability. 0: none is."""
    webhooks: str | None = None
    """Callbacks by name: path of a JSON file, or the JSON itself; see docs/operating.md."""
    webhook_outbox: Path | None = None
    """SQLite file that keeps answers for callbacks until they are delivered."""
    webhook_outbox_cases: int = Field(default=10_000, ge=1, le=1_000_000)
    """Cases that it may hold; one more is answered 503. Delivered ones make room."""
    webhook_keep_hours: int = Field(default=72, ge=1, le=MOST_KEEP_HOURS)
    """How long delivery of an answer is tried, and how long after delivery its status can be asked for."""
    webhook_first_pause_s: Seconds = 5.0
    """Before the second attempt; three times as long before each further one, up to four hours."""
    max_head_bytes: int = Field(default=16_384, ge=1024)
    """Request line and headers together."""
    head_timeout_s: Seconds = 10.0
    """A head that has not arrived whole by then is answered 408. The TLS handshake has as long before."""
    max_connections: int = Field(default=512, ge=1)
    """Open connections, including those in the TLS handshake. One more takes the place of the one that has
    been without a whole head for longest, a second at least, or else is closed unanswered."""
    ready_file: Path | None = None
    """Written with the server's URL once it listens, removed when it stops."""

    @property
    def authenticates_callers(self) -> bool:
        """Whether this server recognises callers itself."""
        return self.api_keys_file is not None or self.jwt_jwks is not None

    @field_validator("shadow_bundles", mode="before")
    @classmethod
    def _split_paths(cls, said: object) -> object:
        """Several folders are separated as in ``PATH``."""
        return [Path(one) for one in said.split(os.pathsep) if one] if isinstance(said, str) else said


def variables() -> dict[str, str]:
    """Environment variable name to field name, for every field."""
    return {PREFIX + name.upper(): name for name in Settings.model_fields}


def load(argv: Sequence[str] | None, environment: Mapping[str, str]) -> Settings:
    """Settings from the command line and the environment.

    Raises:
        ConfigError: an unknown or empty ``TRIAGE_*`` variable, a value out of range, no bundle, contradictory
            settings, or an address that would be exposed.
        SystemExit: argparse met an unknown option, or ``--help``.
    """
    values = _from_environment(environment)
    said = {name: value for name, value in vars(_parser().parse_args(argv)).items() if value is not None}
    for name in ("bundle", "ready_file"):
        if said.get(name) == "":
            raise ConfigError(f"{_FLAGS[name]} is empty: expected a path.")
    values |= said
    if "bundle" not in values:
        raise ConfigError(f"No bundle to serve: give --bundle DIR or set {PREFIX}BUNDLE.")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        where = _FLAGS[name] if name in said else PREFIX + name.upper()
        raise ConfigError(f"{where}: {problem['msg']}, found {problem['input']!r}.") from None
    _refuse_contradictions(settings)
    refuse_exposure(settings, settings.host)
    return settings


def _refuse_contradictions(settings: Settings) -> None:
    """Refuse settings that are incomplete or contradict each other."""
    for names in (
        ("jwt_jwks", "jwt_issuer", "jwt_audience"),
        ("tls_cert", "tls_key"),
        ("webhooks", "webhook_outbox"),
    ):
        said = [name for name in names if getattr(settings, name) is not None]
        if said and len(said) < len(names):
            missing = ", ".join(PREFIX + name.upper() for name in names if name not in said)
            raise ConfigError(f"{PREFIX}{said[0].upper()} is set, and {missing} is not; set all or none.")
    if (
        settings.jwt_jwks is not None
        and "://" in settings.jwt_jwks
        and not _has_no_credentials(settings.jwt_jwks)
    ):
        raise ConfigError(
            f"{PREFIX}JWT_JWKS: expected an address without user and password, which would appear in "
            "logs; found one with an @, or with a port that is not a number. A key set is public: serve "
            "it without credentials, or name a file."
        )
    if settings.allow_unsigned and settings.trusted_keys is not None:
        raise ConfigError(
            f"{PREFIX}ALLOW_UNSIGNED and {PREFIX}TRUSTED_KEYS contradict each other; leave one of them out."
        )
    if settings.behind_tls_proxy and not _callers_authenticated(settings):
        raise ConfigError(
            f"{PREFIX}BEHIND_TLS_PROXY is set without authentication, and whoever reaches the proxy would be "
            f"answered: set {PREFIX}API_KEYS_FILE or {PREFIX}JWT_JWKS, or "
            f"{PREFIX}BEHIND_AUTHENTICATING_PROXY=1 if the proxy asks instead and nobody reaches this server "
            "around it."
        )
    if settings.webhooks is not None and settings.audit_log is None:
        raise ConfigError(
            f"{PREFIX}WEBHOOKS is set, but {PREFIX}AUDIT_LOG is not; an answer is kept for a callback "
            "only once it is recorded: set both."
        )
    if settings.jwt_scope == settings.jwt_clinic_scope:
        raise ConfigError(
            f"{PREFIX}JWT_SCOPE and {PREFIX}JWT_CLINIC_SCOPE are the same; a platform's token must not open "
            "the page with the photographs of all cases: choose two."
        )


def _has_no_credentials(address: str) -> bool:
    """Whether an address has no password in it, whatever characters that has: a slash would end the host."""
    try:
        return "@" not in re.split("[?#]", address)[0] and (urlsplit(address).port or 443) > 0
    except ValueError:  # the port is not a number
        return False


def _callers_authenticated(settings: Settings) -> bool:
    """Whether somebody recognises callers: this server, or a proxy before it."""
    return settings.authenticates_callers or settings.behind_authenticating_proxy


def refuse_exposure(settings: Settings, host: str) -> None:
    """Refuse to listen beyond loopback without both authentication and encryption.

    Args:
        settings: say how callers are authenticated and what encrypts.
        host: address or name. Names other than localhost are not resolved: what one means can change after
            the check.

    Raises:
        ConfigError: the network could send requests, or read them.
    """
    if is_loopback(host):
        return
    if not _callers_authenticated(settings):
        raise ConfigError(
            f"Refusing to listen on '{host}' without authentication: set {PREFIX}API_KEYS_FILE or "
            f"{PREFIX}JWT_JWKS, or listen on 127.0.0.1, ::1 or localhost; or set "
            f"{PREFIX}BEHIND_AUTHENTICATING_PROXY=1 if a proxy authenticates callers and nobody can reach "
            "this server around it."
        )
    if not (settings.tls_cert or settings.behind_tls_proxy or settings.behind_authenticating_proxy):
        raise ConfigError(
            f"Refusing to listen on '{host}' without encryption, which would expose keys and photographs "
            f"to the network: set {PREFIX}TLS_CERT and {PREFIX}TLS_KEY, or {PREFIX}BEHIND_TLS_PROXY=1 if "
            "a proxy encrypts and nobody can reach this server around it."
        )


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    known = variables()
    found = {}
    for variable, value in environment.items():
        if not variable.startswith(PREFIX):
            continue
        if variable not in known:
            near = difflib.get_close_matches(variable, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
            raise ConfigError(f"Unknown environment variable {variable}; {hint}")
        if not value:
            # An empty path would be the folder in which the server happens to be started.
            raise ConfigError(f"{variable} is empty: give it a value, or unset it for the default.")
        found[known[variable]] = value
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="triage-server",
        description="Serve one signed bundle. Subcommands: keys, audit, bundles, shadow, queue, webhooks.",
        epilog="Every setting, including those without an option, can be set by an environment variable: "
        f"{', '.join(variables())}.",
        allow_abbrev=False,
    )
    parser.add_argument(_FLAGS["bundle"], metavar="DIR", help="folder of the sealed bundle")
    parser.add_argument(_FLAGS["host"], help="address to listen on (default 127.0.0.1)")
    parser.add_argument(_FLAGS["port"], help="port to listen on; 0 takes any free port (default 8080)")
    parser.add_argument(
        _FLAGS["threads"], dest="threads", metavar="N", help="cases scored at once (default: processors)"
    )
    parser.add_argument(
        _FLAGS["ready_file"],
        metavar="PATH",
        help="write the server's URL to this file once it listens, and remove it at the end",
    )
    return parser
