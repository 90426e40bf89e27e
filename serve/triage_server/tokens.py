"""Tokens that a site's own identity provider issues: JWT, checked against its published key set.

Imports PyJWT, the errors, the problems, what fetches and the rule of loopback. Only asymmetric algorithms:
whoever can check cannot issue.
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
from triage_server.fetching import begun_aside, fetched
from triage_server.loopback import is_loopback
from triage_server.problems import RequestError

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
MAX_TOKEN_CHARACTERS = 8192
LEEWAY_S = 30
"""How far the clocks of server and identity provider may be apart."""
REFRESH_S = 300.0
RETRY_S = 10.0
"""At the soonest; else tokens with invented key ids would make this server flood the identity provider."""
STALE_S = 3600.0
"""Keys that could not be read again for so long are not believed any more: one may have been withdrawn."""
_MAX_SET_BYTES = 2**20
_FETCH_TIMEOUT_S = 5.0
"""For all of it."""
_GRACE_S = 0.2
"""For a try that ends in time to say why."""
_LATE = "the key set cannot be read (it did not come within {:g} s)."
_Parsed = tuple[dict[str, jwt.PyJWK], list[str]]
"""Keys by id, and why others are left out."""

log = logging.getLogger("triage_server")


@dataclass(frozen=True)
class Bearer:
    """Whom a token speaks for."""

    issuer: str
    subject: str
    scopes: frozenset[str]
    until: float
    """When the token expires, in seconds since 1970."""


class KeySet:
    """Public keys by id, from a file or an address, read again now and then."""

    def __init__(self, source: str) -> None:
        """Read the keys.

        Args:
            source: path of a JWKS document, or its https address; http on loopback only.

        Raises:
            ConfigError: not to be had, or it holds no key that can be used.
        """
        self._source = source
        self._fetching = False
        """Whether a try is under way, be it one that was given up, in a resolver perhaps: one at a time."""
        self._keys, self._left_out = self._read_now()
        self._tell_left_out()
        self._read_at = self._tried_at = time.monotonic()
        self._reading: asyncio.Task[None] | None = None

    async def key(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key of that id, or the only one if no id is said; None if there is no such key.

        Raises:
            RequestError: the keys are too old to be believed and cannot be read.
        """
        if not await self.believed():
            raise RequestError("authentication_unavailable", headers={"Retry-After": f"{RETRY_S:.0f}"})
        if self._find(key_id) is None:
            await self._refreshed()
        return self._find(key_id)

    async def believed(self) -> bool:
        """Whether the keys are young enough. Old ones are read again, and waited for only if they are not."""
        if self._age > STALE_S:
            await self._refreshed()
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
        """Begin to read the keys, unless that is under way; None: it was tried just now."""
        if self._reading is not None and not self._reading.done():
            return self._reading
        if time.monotonic() - self._tried_at < RETRY_S or self._fetching:
            return None
        self._tried_at = time.monotonic()
        self._reading = asyncio.create_task(self._read())
        return self._reading

    async def _refreshed(self) -> None:
        if (reading := self._refresh()) is not None:
            await asyncio.wait({reading})  # which has a limit of its own, and goes on if this caller goes

    def _read_now(self) -> _Parsed:
        """Wait for the keys, and not longer than may be."""
        came: queue.SimpleQueue[_Parsed | BaseException] = queue.SimpleQueue()
        self._begin(came.put)
        try:
            found = came.get(timeout=_FETCH_TIMEOUT_S + _GRACE_S)
        except queue.Empty:
            raise ConfigError(f"{self._source}: {_LATE.format(_FETCH_TIMEOUT_S)}") from None
        if isinstance(found, BaseException):
            raise found
        return found

    async def _found_aside(self) -> _Parsed:
        """Wait for the keys on the event loop. A thread of the loop's own would be waited for at the stop."""
        loop = asyncio.get_running_loop()
        came: asyncio.Future[_Parsed] = loop.create_future()

        def settle(found: _Parsed | BaseException) -> None:
            if came.done():  # given up
                return
            if isinstance(found, BaseException):
                came.set_exception(found)
            else:
                came.set_result(found)

        def tell(found: _Parsed | BaseException) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, found)

        self._begin(tell)
        return await came

    def _begin(self, tell: Callable[[_Parsed | BaseException], object]) -> None:
        def ended(found: _Parsed | BaseException) -> None:
            self._fetching = False
            tell(found)

        self._fetching = True
        begun_aside(lambda: _read_from(self._source), ended)

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_S + _GRACE_S):
                found = await self._found_aside()
        except ConfigError as error:
            why = str(error).removeprefix(f"{self._source}: ")  # an address may hold a word in its query
            log.error("the keys of tokens could not be read again, %.0f s old: %s", self._age, why)
            return
        except Exception as error:
            why = type(error).__name__
            log.error("the keys of tokens could not be read again, %.0f s old: %s", self._age, why)
            return
        self._read_at = time.monotonic()
        self._keys, before, self._left_out = found[0], self._left_out, found[1]
        if self._left_out != before:
            self._tell_left_out()

    def _tell_left_out(self) -> None:
        for why in self._left_out:
            log.warning("a key of tokens is left out: %s", why)


class Tokens:
    """Checks tokens of one issuer, made for one audience."""

    def __init__(self, source: str, issuer: str, audience: str) -> None:
        """Read the issuer's keys.

        Raises:
            ConfigError: they cannot be had.
        """
        self._keys = KeySet(source)
        self._issuer, self._audience = issuer, audience

    async def usable(self) -> bool:
        """Whether the issuer's keys are young enough to be believed; this tries."""
        return await self._keys.believed()

    async def bearer(self, token: str) -> Bearer | None:
        """Whom a token speaks for; None if it is no token of this issuer for this server, now.

        Raises:
            RequestError: the issuer's keys cannot be had.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            return None
        try:
            header = jwt.get_unverified_header(token)
            key_id = header.get("kid")
            if header.get("alg") not in ALGORITHMS or not isinstance(key_id, str | None):
                return None
            key = await self._keys.key(key_id)
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            subject = str(claims["sub"])
            subject.encode()  # half a letter, which JSON can write and UTF-8 cannot, is nobody
            until = float(claims["exp"])
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            return None
        return Bearer(self._issuer, subject, _scopes(claims), until)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """``scope`` after RFC 8693, or ``scp`` as some providers call it: words, or a list of them."""
    said = claims.get("scope", claims.get("scp", ""))
    words = said.split() if isinstance(said, str) else said
    return (
        frozenset(word for word in words if isinstance(word, str)) if isinstance(words, list) else frozenset()
    )


def _read_from(source: str) -> _Parsed:
    return _parsed(source, _content(source))


def _content(source: str) -> bytes:
    try:
        address = urlsplit(source)
        if address.scheme not in ("http", "https"):
            return Path(source).read_bytes()[:_MAX_SET_BYTES]
        if address.scheme == "http" and not is_loopback(address.hostname or ""):
            raise ConfigError(f"{source}: keys that come over plain http could be anyone's; expected https.")
        return fetched(source, _FETCH_TIMEOUT_S, _MAX_SET_BYTES)
    except TimeoutError:
        raise ConfigError(f"{source}: {_LATE.format(_FETCH_TIMEOUT_S)}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ConfigError(f"{source}: the key set cannot be read ({error}).") from None


def _parsed(source: str, content: bytes) -> _Parsed:
    """Keys that may check a signature, and why others are left out, as RFC 7517, section 5, asks.

    Those that are not for signatures, such as those for encryption, are not worth a word.
    """
    try:
        described = list(json.loads(content)["keys"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{source}: not a JWKS document ({type(error).__name__}).") from None
    keys, left_out = {}, []
    for number, one in enumerate(described, start=1):
        if isinstance(one, dict) and (one.get("kty") == "oct" or one.get("use", "sig") != "sig"):
            continue
        try:
            key = jwt.PyJWK(one)
            unfit = _unfit(key)
        except Exception as error:  # whatever a library makes of a strange key, it costs this one alone
            unfit = f"is of no kind that is known here ({type(error).__name__})"  # its text may hold the key
        if unfit is None:
            keys[str(one.get("kid", ""))] = key
        else:
            left_out.append(f"key {number} of the set {unfit}")
    if not keys:
        said = "; ".join(["no public key for signatures in this JWKS document", *left_out])
        raise ConfigError(f"{source}: {said}.")
    return keys, left_out


def _unfit(key: jwt.PyJWK) -> str | None:
    """Why a key may not check tokens; None: it may."""
    if key.algorithm_name not in ALGORITHMS:
        return f"is for {key.algorithm_name}, which is not accepted"
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < 2048:
        return f"has {key.key.key_size} bits, expected 2048 at least"
    return None
