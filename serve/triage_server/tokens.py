"""Tokens (JWT) from a site's own identity provider, verified with its published key set.

Imports PyJWT, the exceptions, the problems, ``fetching`` and the rule of loopback. Only asymmetric algorithms
are accepted: whoever can verify cannot issue.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import queue
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from lesion_triage.errors import ConfigError
from triage_server.fetching import fetch, run_in_daemon_thread
from triage_server.loopback import is_loopback
from triage_server.problems import RequestError

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
MAX_TOKEN_CHARACTERS = 8192
LEEWAY_S = 30
"""Clock skew allowed between this server and the identity provider."""
REFRESH_S = 300.0
RETRY_S = 10.0
"""Least time between fetches; else tokens with invented key ids would make us flood the identity provider."""
STALE_S = 3600.0
"""Keys that could not be fetched again for so long are no longer trusted: one may have been withdrawn."""
_MAX_SET_BYTES = 2**20
_FETCH_TIMEOUT_S = 5.0
"""For the whole."""
_GRACE_S = 0.2
"""Extra time for a fetch that ends just in time to report why."""
_ParsedKeys = tuple[dict[str, jwt.PyJWK], list[str]]
"""Keys by id, and why others were left out."""

log = logging.getLogger("triage_server")


@dataclass(frozen=True)
class VerifiedToken:
    """Whom a token speaks for."""

    issuer: str
    subject: str
    scopes: frozenset[str]
    expires_at: float
    """When the token expires, in seconds since 1970."""


class KeySet:
    """Public keys by id, from a file or an address, refreshed every few minutes while in use."""

    def __init__(self, source: str) -> None:
        """Read the keys.

        Args:
            source: path of a JWKS document, or its https address; http on loopback only.

        Raises:
            ConfigError: it cannot be read, or has no usable key.
        """
        self._source = source
        self._fetching = False
        """Whether a fetch is running, perhaps one given up during name resolution. There is one at a time."""
        self._keys, self._skipped = self._fetch_keys_blocking()
        self._log_skipped()
        self._read_at = self._tried_at = time.monotonic()
        self._refresh_task: asyncio.Task[None] | None = None

    async def get_key(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key with that id, or the only key if no id is given; None if there is no such key.

        Raises:
            RequestError: the keys are too old to be trusted and cannot be fetched.
        """
        if not await self.is_fresh():
            raise RequestError("authentication_unavailable", headers={"Retry-After": f"{RETRY_S:.0f}"})
        if self._find(key_id) is None:
            await self._wait_for_refresh()
        return self._find(key_id)

    async def get_replacement(self, key_id: str | None, former: jwt.PyJWK) -> jwt.PyJWK | None:
        """The key that was published since in place of ``former``, under its id; None if none was.

        A provider that replaces a key should give it a new id, but some do not.
        """
        await self._wait_for_refresh()
        key = self._find(key_id)
        return None if key is former else key

    async def is_fresh(self) -> bool:
        """Whether the keys are fresh enough. Old ones are refreshed; only stale ones are waited for."""
        if self._age > STALE_S:
            await self._wait_for_refresh()
        elif self._age > REFRESH_S:
            self._refresh()
        return self._age <= STALE_S

    @property
    def _age(self) -> float:
        return time.monotonic() - self._read_at

    def _find(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _refresh(self) -> asyncio.Task[None] | None:
        """Start a refresh, unless one is running; None: the last one was just now."""
        if self._refresh_task is not None and not self._refresh_task.done():
            return self._refresh_task
        if time.monotonic() - self._tried_at < RETRY_S or self._fetching:
            return None
        self._tried_at = time.monotonic()
        self._refresh_task = asyncio.create_task(self._refresh_keys())
        return self._refresh_task

    async def _wait_for_refresh(self) -> None:
        if (reading := self._refresh()) is not None:
            await asyncio.wait({reading})  # it has its own time limit, and continues if this caller leaves

    def _fetch_keys_blocking(self) -> _ParsedKeys:
        """Wait for the keys, within the time limit."""
        came: queue.SimpleQueue[_ParsedKeys | BaseException] = queue.SimpleQueue()
        self._start_fetch(came.put)
        try:
            found = came.get(timeout=_FETCH_TIMEOUT_S + _GRACE_S)
        except queue.Empty:
            raise _timeout_error() from None
        if isinstance(found, BaseException):
            raise found
        return found

    async def _fetch_keys(self) -> _ParsedKeys:
        """Wait for the keys on the event loop. Not in its default executor, for which shutdown would wait."""
        loop = asyncio.get_running_loop()
        came: asyncio.Future[_ParsedKeys] = loop.create_future()

        def settle(found: _ParsedKeys | BaseException) -> None:
            if came.done():  # given up
                return
            if isinstance(found, BaseException):
                came.set_exception(found)
            else:
                came.set_result(found)

        def on_result(found: _ParsedKeys | BaseException) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, found)

        self._start_fetch(on_result)
        return await came

    def _start_fetch(self, on_result: Callable[[_ParsedKeys | BaseException], object]) -> None:
        def ended(found: _ParsedKeys | BaseException) -> None:
            self._fetching = False
            on_result(found)

        self._fetching = True
        run_in_daemon_thread(lambda: _load_keys(self._source), ended)

    async def _refresh_keys(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_S + _GRACE_S):
                found = await self._fetch_keys()
        except Exception as error:
            why = error if isinstance(error, ConfigError) else type(error).__name__
            log.error("the token key set could not be refreshed, %.0f s old: %s", self._age, why)
            return
        self._read_at = time.monotonic()
        self._keys, before, self._skipped = found[0], self._skipped, found[1]
        if self._skipped != before:
            self._log_skipped()

    def _log_skipped(self) -> None:
        for why in self._skipped:
            log.warning("a key of the token key set is skipped: %s", why)


class TokenVerifier:
    """Verifies tokens of one issuer for one audience."""

    def __init__(self, source: str, issuer: str, audience: str) -> None:
        """Read the issuer's keys.

        Raises:
            ConfigError: they cannot be read.
        """
        self._keys = KeySet(source)
        self._issuer, self._audience = issuer, audience

    async def is_ready(self) -> bool:
        """Whether the issuer's keys are fresh enough to be trusted; refreshes them if needed."""
        return await self._keys.is_fresh()

    async def verify(self, token: str) -> VerifiedToken | None:
        """Whom a token speaks for; None if it is not a valid token of this issuer for this server, now.

        Raises:
            RequestError: the issuer's keys cannot be fetched.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            return None
        try:
            header = jwt.get_unverified_header(token)
            key_id = header.get("kid")
            if header.get("alg") not in ALGORITHMS or not isinstance(key_id, str | None):
                return None
            key = await self._keys.get_key(key_id)
            if key is None:
                return None
            try:
                claims = self._decode(token, key)
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                key = await self._keys.get_replacement(key_id, key)
                if key is None:
                    return None
                claims = self._decode(token, key)
            subject = str(claims["sub"])
            subject.encode()  # half a surrogate pair, which JSON can write and UTF-8 cannot, names nobody
            expires_at = float(claims["exp"])
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            return None
        return VerifiedToken(self._issuer, subject, _scopes(claims), expires_at)

    def _decode(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        """The claims, verified.

        Raises:
            jwt.PyJWTError: they are not valid here, now, or another key signed them.
        """
        return jwt.decode(
            token,
            key,
            algorithms=list(ALGORITHMS),
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """``scope`` after RFC 8693, or ``scp`` as some providers call it: a string of words, or a list."""
    said = claims.get("scope", claims.get("scp", ""))
    words = said.split() if isinstance(said, str) else said
    return (
        frozenset(word for word in words if isinstance(word, str)) if isinstance(words, list) else frozenset()
    )


def _load_keys(source: str) -> _ParsedKeys:
    return _parse_jwks(_read_source(source))


def _read_source(source: str) -> bytes:
    """The document; no error quotes the address, which may have a secret in its query."""
    try:
        address = urlsplit(source)
        if address.scheme not in ("http", "https"):
            return Path(source).read_bytes()[:_MAX_SET_BYTES]
        if address.scheme == "http" and not is_loopback(address.hostname or ""):
            raise ConfigError(
                "TRIAGE_JWT_JWKS: expected https; keys that come over plain http could be anyone's."
            )
        return fetch(source, _FETCH_TIMEOUT_S, _MAX_SET_BYTES)
    except TimeoutError:
        raise _timeout_error() from None
    except http.client.InvalidURL:
        raise ConfigError(
            "TRIAGE_JWT_JWKS: not a valid address; a space or another character must be percent-encoded."
        ) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ConfigError(f"TRIAGE_JWT_JWKS: the key set cannot be read ({error}).") from None


def _timeout_error() -> ConfigError:
    return ConfigError(
        f"TRIAGE_JWT_JWKS: the key set cannot be read (it did not arrive within {_FETCH_TIMEOUT_S:g} s)."
    )


def _parse_jwks(content: bytes) -> _ParsedKeys:
    """Keys that may verify a signature, and why others were left out, as RFC 7517, section 5, asks.

    Keys that are not for signatures, such as those for encryption, are left out without a mention.
    """
    try:
        described = list(json.loads(content)["keys"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"TRIAGE_JWT_JWKS: not a JWKS document ({type(error).__name__}).") from None
    keys: dict[str, jwt.PyJWK] = {}
    left_out: list[str] = []
    for number, one in enumerate(described, start=1):
        if isinstance(one, dict) and (one.get("kty") == "oct" or one.get("use", "sig") != "sig"):
            continue
        try:
            key = jwt.PyJWK(one)
            reason = _unfit_reason(key)
        except Exception as error:  # whatever a library does with an odd key, only this one is lost
            reason = f"is of an unsupported kind ({type(error).__name__})"  # its text may hold the key
        if reason is None and keys.setdefault(str(one.get("kid", "")), key) is not key:
            reason = "has the same kid as an earlier key, or like it none"
        if reason is not None:
            left_out.append(f"key {number} of the set {reason}")
    if not keys:
        said = "; ".join(["no public key for signatures in this JWKS document", *left_out])
        raise ConfigError(f"TRIAGE_JWT_JWKS: {said}.")
    return keys, left_out


def _unfit_reason(key: jwt.PyJWK) -> str | None:
    """Why a key may not verify tokens; None: it may."""
    if key.algorithm_name not in ALGORITHMS:
        return f"is for {key.algorithm_name}, which is not accepted"
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < 2048:
        return f"has {key.key.key_size} bits, expected at least 2048"
    return None
