"""Sessions of browsers: a signed cookie, and the token by which a form proves that it came from this page.

Imports PyJWT, the standard library and the gate's callers. The signing key is made when the process starts
and stored nowhere, so sessions end with the server.
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from dataclasses import dataclass

import jwt
from starlette.requests import Request
from starlette.responses import Response

from triage_server.security import NOBODY, Caller

LASTS_S = 8 * 3600
"""A working day; then the key is asked for again. A session ends sooner with the token it was begun with."""
_ALGORITHM = "HS256"
_MOST_ENDED = 10_000
"""Sign-outs remembered; far more than a clinic has within ``LASTS_S``."""


@dataclass(frozen=True, slots=True)
class Session:
    """One browser, before or after sign-in."""

    id: str
    caller: Caller | None
    """None: nobody has signed in."""
    reader: str = ""
    """The person's name, as typed at sign-in."""
    vouched: bool = False
    """Whether a proxy said who it is, and must say so again with each request."""


class Sessions:
    """Begins, recognises and ends sessions."""

    def __init__(self, *, encrypted: bool) -> None:
        """Make a signing key.

        Args:
            encrypted: whether browsers connect over TLS, so that the cookie may require it.
        """
        self._key = secrets.token_bytes(32)
        self._encrypted = encrypted
        self._name = "__Host-triage" if encrypted else "triage"
        self._ended: dict[str, float] = {}

    def of(self, request: Request) -> Session | None:
        """The session of the request's cookie; None if there is none, or it is not ours or has ended."""
        try:
            told = jwt.decode(
                request.cookies.get(self._name, ""),
                self._key,
                algorithms=[_ALGORITHM],
                options={"require": ["exp", "jti"]},
            )
        except jwt.PyJWTError:
            return None
        if told["jti"] in self._ended:
            return None
        caller = Caller(told["caller"], told["role"]) if told["caller"] else None
        # The gate recognises NOBODY by identity.
        return Session(
            told["jti"], NOBODY if caller == NOBODY else caller, told["reader"], bool(told["vouched"])
        )

    def begin(
        self,
        response: Response,
        caller: Caller | None = None,
        reader: str = "",
        *,
        vouched: bool = False,
        until: float = math.inf,
    ) -> Session:
        """Begin a session and set its cookie in ``response``; it ends by ``until``, in seconds since 1970."""
        session = Session(secrets.token_urlsafe(24), caller, reader, vouched)
        now = int(time.time())
        ends = int(min(now + LASTS_S, until))
        told = {
            "jti": session.id,
            "exp": ends,
            "caller": caller.name if caller else "",
            "role": caller.role if caller else "",
            "reader": reader,
            "vouched": vouched,
        }
        response.set_cookie(
            self._name,
            jwt.encode(told, self._key, algorithm=_ALGORITHM),
            max_age=max(0, ends - now),
            path="/",
            secure=self._encrypted,
            httponly=True,
            samesite="strict",
        )
        return session

    def end(self, response: Response, session: Session) -> None:
        """Sign out: copies of the cookie are refused too."""
        now = time.time()
        self._ended = {one: until for one, until in self._ended.items() if until > now}
        if len(self._ended) >= _MOST_ENDED:
            # None may be forgotten, or its cookie would be good again: with another key all have ended.
            self._key, self._ended = secrets.token_bytes(32), {}
        self._ended[session.id] = now + LASTS_S
        response.delete_cookie(self._name, path="/", secure=self._encrypted, httponly=True, samesite="strict")

    def token(self, session: Session) -> str:
        """The token that each form of this session carries."""
        return hmac.digest(self._key, f"form {session.id}".encode(), "sha256").hex()

    def fits(self, session: Session, token: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(self.token(session).encode(), token.encode())
