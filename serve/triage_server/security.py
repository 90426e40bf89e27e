"""Authentication, permission and rate limit.

Imports keys, tokens, settings, the rule of loopback and the problems. It is inside the request log and around
every endpoint. Unknown callers are refused before a byte of the body is read, on paths that do not exist too.
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
from triage_server.error_responses import response_to
from triage_server.loopback import is_loopback
from triage_server.problems import RequestError
from triage_server.settings import Settings

if TYPE_CHECKING:
    from triage_server.tokens import TokenVerifier

OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
_KEY_CHECK_INTERVAL_S = 1.0
_MAX_BUCKETS = 10_000

log = logging.getLogger("triage_server")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, as logs may know it."""

    name: str
    """``key:`` and the key's id, ``token:`` and a hash of issuer and subject, or ``nobody``."""
    role: Role

    def require_score_role(self) -> None:
        """Refuse a caller who may not score.

        Raises:
            RequestError: the role is another than ``score``.
        """
        if self.role != "score":
            raise RequestError("not_allowed", headers={"WWW-Authenticate": _challenge("insufficient_scope")})


@dataclass(frozen=True, slots=True)
class VerifiedCaller:
    """The owner of a key or a token, and how long it is valid."""

    caller: Caller
    expires_at: float = math.inf
    """Seconds since 1970; infinite for a key, which is valid until revoked."""


ANONYMOUS = Caller("nobody", "score")
"""The caller of a server that requires no credentials: on loopback, or behind a proxy that authenticates."""


class Authenticator:
    """Identifies callers by their credentials."""

    def __init__(self, settings: Settings, hash_of: Callable[[bytes], str] | None = None) -> None:
        """Read API keys and key set.

        Args:
            settings: say which.
            hash_of: makes the caller's name from a token's subject, which may be a person's name; None: a
                hash that changes at each start.

        Raises:
            ConfigError: API keys or key set cannot be read.
        """
        self._key_path = settings.api_keys_file
        self._keys = KeyFile(self._key_path) if self._key_path else None
        self._token_verifier: TokenVerifier | None = None
        if settings.jwt_jwks:
            assert settings.jwt_issuer is not None
            assert settings.jwt_audience is not None
            from triage_server.tokens import TokenVerifier  # noqa: PLC0415 - most sites have keys, and start sooner

            self._token_verifier = TokenVerifier(
                settings.jwt_jwks, settings.jwt_issuer, settings.jwt_audience
            )
        self._roles: dict[str, Role] = {settings.jwt_scope: "score", settings.jwt_clinic_scope: "clinic"}
        start = secrets.token_bytes(32)
        self._hash_of = hash_of or (lambda data: sha256(start + data).hexdigest())
        self._keys_checked_at = time.monotonic()
        self._proxy_authenticates = settings.behind_authenticating_proxy

    async def authenticate(self, headers: Headers) -> Caller:
        """The caller with these headers.

        Raises:
            RequestError: unknown caller, or the keys cannot be read; or no credentials are required, and
                another site made a browser send the request.
        """
        if not self.requires_credentials:
            if not self._proxy_authenticates and _is_cross_site(headers):
                raise RequestError("from_elsewhere")
            return ANONYMOUS
        credential = headers.getlist("authorization")
        if not credential:
            raise RequestError("not_authenticated", headers={"WWW-Authenticate": _challenge()})
        scheme, _, token = credential[0].partition(" ")
        if len(credential) == 1 and scheme.lower() == "bearer":
            found = await self.verify(token)
            if found is not None:
                return found.caller
        raise RequestError("not_authenticated", headers={"WWW-Authenticate": _challenge("invalid_token")})

    async def is_ready(self) -> bool:
        """False while the file of API keys is broken, or the token keys are stale and cannot be fetched."""
        if self._key_path is not None:
            try:
                self._current_keys()  # even if no key is shown: no traffic comes until this is ready
            except RequestError:
                return False
        return self._token_verifier is None or await self._token_verifier.is_ready()

    @property
    def requires_credentials(self) -> bool:
        """Whether callers need credentials."""
        return self._key_path is not None or self._token_verifier is not None

    @property
    def accepts_tokens(self) -> bool:
        """Whether tokens of an identity provider are accepted."""
        return self._token_verifier is not None

    async def verify(self, credential: str, role: Role | None = None) -> VerifiedCaller | None:
        """The owner of a key or token; None: it is not valid here and now.

        Args:
            credential: the key or token.
            role: the required role; None: any.

        Raises:
            RequestError: keys or key set cannot be read; or ``role`` is None, and the token gives no role.
        """
        if not credential.startswith(PREFIX):
            return await self._verify_token(credential, role)
        found = self._verify_key(credential)
        return found if found is not None and role in (None, found.caller.role) else None

    def is_still_valid(self, caller: Caller) -> bool:
        """Whether an earlier caller would still be known. The expiry of a token is not checked here.

        Raises:
            RequestError: the API keys cannot be read.
        """
        if caller.name.startswith("key:"):
            return self._key_path is not None and self._current_keys().role_of(caller.name[4:]) == caller.role
        return (
            self._token_verifier is not None
            if caller.name.startswith("token:")
            else not self.requires_credentials
        )

    def _verify_key(self, key: str) -> VerifiedCaller | None:
        if self._key_path is None:
            return None
        record = self._current_keys().find(key)
        return None if record is None else VerifiedCaller(Caller(f"key:{record.key_id}", record.role))

    def _current_keys(self) -> KeyFile:
        if time.monotonic() - self._keys_checked_at >= _KEY_CHECK_INTERVAL_S:
            self._keys_checked_at = time.monotonic()
            if self._keys is None or self._keys.has_changed():
                self._keys = self._reload_keys()
        if self._keys is None:
            # Keeping the old keys could admit someone whom the edit was meant to shut out.
            raise RequestError("authentication_unavailable", headers={"Retry-After": "2"})
        return self._keys

    def _reload_keys(self) -> KeyFile | None:
        assert self._key_path is not None
        try:
            return KeyFile(self._key_path)
        except ConfigError as error:
            log.error("no key is accepted: %s", error)
            return None

    async def _verify_token(self, token: str, wanted: Role | None) -> VerifiedCaller | None:
        verified = await self._token_verifier.verify(token) if self._token_verifier else None
        if verified is None:
            return None
        granted = [role for scope, role in self._roles.items() if scope in verified.scopes]
        roles = [role for role in granted if wanted in (None, role)]
        if not roles and wanted is not None:
            return None
        if not roles:
            raise RequestError("not_allowed", headers={"WWW-Authenticate": _challenge("insufficient_scope")})
        known = self._hash_of(f"{verified.issuer}\n{verified.subject}".encode())
        return VerifiedCaller(Caller(f"token:{known[:32]}", roles[0]), verified.expires_at)


class RateLimiter:
    """Rate limit: a token bucket per caller, which holds a minute's requests and is refilled evenly."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, caller: Caller, moment: float) -> None:
        """Count one request.

        Raises:
            RequestError: the caller's bucket is empty; Retry-After says when to try again.
        """
        self._spend(caller, moment, 1, needed=1)

    def take_further_cases(self, caller: Caller, moment: float, cases: int) -> None:
        """Count further cases of a request that was counted, but no more in all than a full bucket holds.

        Raises:
            RequestError: the caller's bucket holds too few; Retry-After says when to try again.
        """
        cases = min(cases, self._per_minute - 1)
        self._spend(caller, moment, cases, needed=cases + 1)

    def _spend(self, caller: Caller, moment: float, cases: int, needed: int) -> None:
        """Take ``cases`` out of the bucket, or refuse until it holds ``needed``."""
        left, then = self._buckets.pop(caller.name, (float(self._per_minute), moment))
        left = min(self._per_minute, left + (moment - then) * self._per_minute / 60)
        if len(self._buckets) >= _MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]  # the caller who has been silent for longest
        if left < cases:
            self._buckets[caller.name] = (left, moment)
            wait = (needed - left) * 60 / self._per_minute
            raise RequestError("rate_limited", headers={"Retry-After": str(int(wait) + 1)})
        self._buckets[caller.name] = (left - cases, moment)


class AuthenticationMiddleware:
    """ASGI middleware: admits only known callers, within their rate limit."""

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        rate_limiter: RateLimiter,
        exempt_path: str | None = None,
    ) -> None:
        """Wrap an application.

        Args:
            app: the application.
            authenticator: identifies callers.
            rate_limiter: limits their rate.
            exempt_path: path of a part that controls access itself, because browsers send no key in a header;
                None: there is none.
        """
        self._app, self._authenticator, self._rate_limiter = app, authenticator, rate_limiter
        self._exempt_path = exempt_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        if scope["path"] not in OPEN_PATHS and not self._is_exempt(scope["path"]):
            try:
                state["caller"] = await self._authenticator.authenticate(Headers(scope=scope))
                if state["caller"] is not ANONYMOUS:
                    self._rate_limiter.take(state["caller"], asyncio.get_running_loop().time())
            except RequestError as refusal:
                state["problem"] = refusal.code
                await response_to(refusal, state["request_id"], scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_exempt(self, path: str) -> bool:
        exempt = self._exempt_path
        return exempt is not None and (path == exempt or path.startswith(f"{exempt}/"))


def _is_cross_site(headers: Headers) -> bool:
    """Whether another site made a browser send this: the Host, the Origin or Sec-Fetch-Site shows it.

    Programs send no Origin and perhaps no Host. A page of this machine may come from another port.
    """
    hosts = requested_hosts(headers) + [_hostname(origin) for origin in headers.getlist("origin")]
    return headers.get("sec-fetch-site") == "cross-site" or not all(map(is_loopback, hosts))


def requested_hosts(headers: Headers) -> list[str]:
    """The host names by which this server was addressed: one from a browser, none from some programs.

    Returns:
        Names and addresses in lower case, without port and brackets; an unreadable one is an empty string.
    """
    return [_hostname(f"//{said}") for said in headers.getlist("host") if said]


def _hostname(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _challenge(error: str | None = None) -> str:
    """WWW-Authenticate after RFC 6750."""
    return 'Bearer realm="triage"' + (f', error="{error}"' if error else "")
