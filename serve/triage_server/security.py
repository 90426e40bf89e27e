"""The gate: who asks, whether they may, and how often.

Imports keys, tokens, settings, the rule of loopback and the problems. It stands inside the envelope and
outside every endpoint. What it does not know it refuses, paths that do not exist included, before a byte of
the body is read.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lesion_triage.errors import ConfigError
from triage_server.api_keys import PREFIX, KeyFile, Role
from triage_server.loopback import is_loopback
from triage_server.problems import RequestError
from triage_server.refusals import response_to
from triage_server.settings import Settings

if TYPE_CHECKING:
    from triage_server.tokens import Tokens

OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
_LOOK_AGAIN_S = 1.0
_MOST_CALLERS = 10_000

log = logging.getLogger("triage_server")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as logs may know it."""

    name: str
    """``key:`` and the key's id, ``token:`` and a hash of issuer and subject, or ``nobody``."""
    role: Role

    def must_be_allowed_to_score(self) -> None:
        """Refuse those who may only read.

        Raises:
            RequestError: the key is one for reading.
        """
        if self.role != "score":
            raise RequestError("not_allowed", headers={"WWW-Authenticate": _challenge("insufficient_scope")})


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody who showed a key or a token, and for how long that is good."""

    caller: Caller
    until: float = math.inf
    """Seconds since 1970; a key is good until it is struck out."""


NOBODY = Caller("nobody", "score")
"""Whoever asks a server that asks no one: on loopback, or behind a proxy that asks instead."""


class Door:
    """Tells callers apart by what they show."""

    def __init__(self, settings: Settings, hash_of: Callable[[bytes], str] | None = None) -> None:
        """Read keys and key set.

        Args:
            settings: say which.
            hash_of: makes a name out of a token's subject, which may be a person's; None: one that
                changes at each start.

        Raises:
            ConfigError: keys or key set cannot be read.
        """
        self._key_path = settings.api_keys_file
        self._keys = KeyFile(self._key_path) if self._key_path else None
        self._tokens: Tokens | None = None
        if settings.jwt_jwks:
            assert settings.jwt_issuer is not None
            assert settings.jwt_audience is not None
            from triage_server.tokens import Tokens  # noqa: PLC0415 - most sites have keys, and start sooner

            self._tokens = Tokens(settings.jwt_jwks, settings.jwt_issuer, settings.jwt_audience)
        self._roles: dict[str, Role] = {settings.jwt_scope: "score", settings.jwt_clinic_scope: "clinic"}
        start = secrets.token_bytes(32)
        self._hash_of = hash_of or (lambda data: sha256(start + data).hexdigest())
        self._looked = time.monotonic()
        self._behind_proxy = settings.behind_tls_proxy or settings.behind_authenticating_proxy

    async def caller(self, headers: Headers) -> Caller:
        """Who sends these headers.

        Raises:
            RequestError: nobody known, or the keys cannot be read; or nobody is asked, and a browser was sent
                here by somebody else.
        """
        if not self.asks:
            if not self._behind_proxy and _from_elsewhere(headers):
                raise RequestError("from_elsewhere")
            return NOBODY
        shown = headers.getlist("authorization")
        if not shown:
            raise RequestError("not_authenticated", headers={"WWW-Authenticate": _challenge()})
        scheme, _, token = shown[0].partition(" ")
        if len(shown) == 1 and scheme.lower() == "bearer":
            found = await self.known(token)
            if found is not None:
                return found.caller
        raise RequestError("not_authenticated", headers={"WWW-Authenticate": _challenge("invalid_token")})

    async def usable(self) -> bool:
        """False while the file of keys is broken, or the keys of tokens are too old and not to be had."""
        if self._key_path is not None:
            try:
                self._present_keys()  # not only when somebody shows a key: nobody is sent to who is not ready
            except RequestError:
                return False
        return self._tokens is None or await self._tokens.usable()

    @property
    def asks(self) -> bool:
        """Whether callers have to show anything."""
        return self._key_path is not None or self._tokens is not None

    @property
    def reads_tokens(self) -> bool:
        """Whether an identity provider's tokens are known here."""
        return self._tokens is not None

    async def known(self, shown: str, role: Role | None = None) -> Known | None:
        """Whose key or token this is; None: none that is valid here and now.

        Args:
            shown: the key or token.
            role: the only one that will do; None: any.

        Raises:
            RequestError: keys or key set cannot be read; or any role would do, and a token gives none.
        """
        if not shown.startswith(PREFIX):
            return await self._by_token(shown, role)
        found = self._by_key(shown)
        return found if found is not None and role in (None, found.caller.role) else None

    def still_knows(self, caller: Caller) -> bool:
        """Whether somebody who was known earlier would be now; when a token ends, whoever keeps it must know.

        Raises:
            RequestError: the keys cannot be read.
        """
        if caller.name.startswith("key:"):
            return self._key_path is not None and self._present_keys().role_of(caller.name[4:]) == caller.role
        return self._tokens is not None if caller.name.startswith("token:") else not self.asks

    def _by_key(self, key: str) -> Known | None:
        if self._key_path is None:
            return None
        record = self._present_keys().find(key)
        return None if record is None else Known(Caller(f"key:{record.key_id}", record.role))

    def _present_keys(self) -> KeyFile:
        if time.monotonic() - self._looked >= _LOOK_AGAIN_S:
            self._looked = time.monotonic()
            if self._keys is None or self._keys.changed():
                self._keys = self._read_again()
        if self._keys is None:
            # To go on with the keys of before would let in whom an edit was meant to shut out.
            raise RequestError("authentication_unavailable", headers={"Retry-After": "2"})
        return self._keys

    def _read_again(self) -> KeyFile | None:
        assert self._key_path is not None
        try:
            return KeyFile(self._key_path)
        except ConfigError as error:
            log.error("no key is accepted: %s", error)
            return None

    async def _by_token(self, token: str, wanted: Role | None) -> Known | None:
        bearer = await self._tokens.bearer(token) if self._tokens else None
        if bearer is None:
            return None
        given = [role for scope, role in self._roles.items() if scope in bearer.scopes]
        roles = [role for role in given if wanted in (None, role)]
        if not roles and wanted is not None:
            return None
        if not roles:
            raise RequestError("not_allowed", headers={"WWW-Authenticate": _challenge("insufficient_scope")})
        known = self._hash_of(f"{bearer.issuer}\n{bearer.subject}".encode())
        return Known(Caller(f"token:{known[:32]}", roles[0]), bearer.until)


class Pace:
    """A bucket for each caller: a minute's worth of requests at once, refilled evenly."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, caller: Caller, moment: float) -> None:
        """Count one request.

        Raises:
            RequestError: the caller's bucket is empty; it says when to come again.
        """
        self._spend(caller, moment, 1, needed=1)

    def take_further(self, caller: Caller, moment: float, cases: int) -> None:
        """Count further cases of a request that was counted, as far as a full bucket holds both.

        Raises:
            RequestError: the caller's bucket does not hold as many; it says when to come again.
        """
        cases = min(cases, self._per_minute - 1)
        self._spend(caller, moment, cases, needed=cases + 1)

    def _spend(self, caller: Caller, moment: float, cases: int, needed: int) -> None:
        """Take so many out of the bucket; whoever comes again needs ``needed`` in it."""
        left, then = self._buckets.pop(caller.name, (float(self._per_minute), moment))
        left = min(self._per_minute, left + (moment - then) * self._per_minute / 60)
        if len(self._buckets) >= _MOST_CALLERS:
            del self._buckets[next(iter(self._buckets))]  # whoever has been silent for longest
        if left < cases:
            self._buckets[caller.name] = (left, moment)
            wait = (needed - left) * 60 / self._per_minute
            raise RequestError("rate_limited", headers={"Retry-After": str(int(wait) + 1)})
        self._buckets[caller.name] = (left - cases, moment)


class Gate:
    """ASGI middleware: only known callers come in, at a bearable pace."""

    def __init__(self, app: ASGIApp, door: Door, pace: Pace, elsewhere: str | None = None) -> None:
        """Stand before an application.

        Args:
            app: inside.
            door: knows the callers.
            pace: how often each may come.
            elsewhere: path below which the application asks by itself, because browsers show no header; None:
                there is none.
        """
        self._app, self._door, self._pace = app, door, pace
        self._elsewhere = elsewhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        if scope["path"] not in OPEN_PATHS and not self._asked_elsewhere(scope["path"]):
            try:
                state["caller"] = await self._door.caller(Headers(scope=scope))
                if state["caller"] is not NOBODY:
                    self._pace.take(state["caller"], asyncio.get_running_loop().time())
            except RequestError as refusal:
                state["problem"] = refusal.code
                await response_to(refusal, state["request_id"], scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _asked_elsewhere(self, path: str) -> bool:
        below = self._elsewhere
        return below is not None and (path == below or path.startswith(f"{below}/"))


def _from_elsewhere(headers: Headers) -> bool:
    """Whether a page of another site makes a browser ask: by a name of its own for this machine, or openly.

    Programs send no Origin, and may send no Host; a page of this machine may stand at another port.
    """
    hosts = hosts_named(headers) + [_host_in(origin) for origin in headers.getlist("origin")]
    return headers.get("sec-fetch-site") == "cross-site" or not all(map(is_loopback, hosts))


def hosts_named(headers: Headers) -> list[str]:
    """By which names this machine was asked, as the headers say: one from a browser, none from some programs.

    Returns:
        Names and addresses in lower case, without port and brackets; empty where none can be read.
    """
    return [_host_in(f"//{said}") for said in headers.getlist("host") if said]


def _host_in(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _challenge(error: str | None = None) -> str:
    """After RFC 6750."""
    return 'Bearer realm="triage"' + (f', error="{error}"' if error else "")
