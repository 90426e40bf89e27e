"""Sessions of browsers: a signed cookie, and the token by which a form proves that it came from this page.

Imports PyJWT, the standard library and the callers that security knows. The signing key is made when the
process starts and stored nowhere, so sessions end with the server.
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

from triage_server.security import ANONYMOUS, Caller

SESSION_LIFETIME_S = 8 * 3600
"""A working day; then the key is asked for again. A session ends sooner with the token it was begun with."""
_ALGORITHM = "HS256"
_MAX_REVOKED = 10_000
"""Sign-outs remembered; far more than a clinic has within ``SESSION_LIFETIME_S``."""


@dataclass(frozen=True, slots=True)
class Session:
    """One browser, before or after sign-in."""

    id: str
    caller: Caller | None
    """None: nobody has signed in."""
    reader: str = ""
    """The person's name, as typed at sign-in."""
    proxy_authenticated: bool = False
    """Whether a proxy said who it is, and must say so again with each request."""


class Sessions:
    """Begins, recognises and ends sessions."""

    def __init__(self, *, encrypted: bool) -> None:
        """Make a signing key.

        Args:
            encrypted: whether browsers connect over TLS, so that the cookie may require it.
        """
        self._key = secrets.token_bytes(32)
        self._over_tls = encrypted
        self._cookie_name = "__Host-triage" if encrypted else "triage"
        self._revoked: dict[str, float] = {}

    def find(self, request: Request) -> Session | None:
        """The session of the request's cookie; None if there is none, or it is not ours or has ended."""
        try:
            claims = jwt.decode(
                request.cookies.get(self._cookie_name, ""),
                self._key,
                algorithms=[_ALGORITHM],
                options={"require": ["exp", "jti"]},
            )
        except jwt.PyJWTError:
            return None
        if claims["jti"] in self._revoked:
            return None
        caller = Caller(claims["caller"], claims["role"]) if claims["caller"] else None
        # ANONYMOUS is compared by identity.
        return Session(
            claims["jti"],
            ANONYMOUS if caller == ANONYMOUS else caller,
            claims["reader"],
            bool(claims["vouched"]),
        )

    def begin(
        self,
        response: Response,
        caller: Caller | None = None,
        reader: str = "",
        *,
        proxy_authenticated: bool = False,
        until: float = math.inf,
    ) -> Session:
        """Begin a session and set its cookie in ``response``; it ends by ``until``, in seconds since 1970."""
        session = Session(secrets.token_urlsafe(24), caller, reader, proxy_authenticated)
        now = int(time.time())
        ends = int(min(now + SESSION_LIFETIME_S, until))
        claims = {
            "jti": session.id,
            "exp": ends,
            "caller": caller.name if caller else "",
            "role": caller.role if caller else "",
            "reader": reader,
            "vouched": proxy_authenticated,
        }
        response.set_cookie(
            self._cookie_name,
            jwt.encode(claims, self._key, algorithm=_ALGORITHM),
            max_age=max(0, ends - now),
            path="/",
            secure=self._over_tls,
            httponly=True,
            samesite="strict",
        )
        return session

    def end(self, response: Response, session: Session) -> None:
        """Sign out: copies of the cookie are refused too."""
        now = time.time()
        self._revoked = {one: until for one, until in self._revoked.items() if until > now}
        if len(self._revoked) >= _MAX_REVOKED:
            # None may be forgotten, or its cookie would be good again: with another key all have ended.
            self._key, self._revoked = secrets.token_bytes(32), {}
        self._revoked[session.id] = now + SESSION_LIFETIME_S
        response.delete_cookie(
            self._cookie_name, path="/", secure=self._over_tls, httponly=True, samesite="strict"
        )

    def csrf_token(self, session: Session) -> str:
        """The token that each form of this session carries."""
        return hmac.digest(self._key, f"form {session.id}".encode(), "sha256").hex()

    def csrf_token_matches(self, session: Session, csrf_token: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(self.csrf_token(session).encode(), csrf_token.encode())
