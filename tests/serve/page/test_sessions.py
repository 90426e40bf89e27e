from __future__ import annotations

import dataclasses

from starlette.requests import Request
from starlette.responses import Response

from triage_server.page import sessions
from triage_server.page.sessions import Session, Sessions


def begin_session(known: Sessions) -> tuple[Session, Request]:
    response = Response()
    session = known.begin(response)
    cookie = response.headers["set-cookie"].partition(";")[0].encode()
    return session, Request({"type": "http", "headers": [(b"cookie", cookie)]})


def test_no_number_of_sign_outs_brings_an_ended_session_back() -> None:
    known = Sessions(encrypted=False)
    mine, request = begin_session(known)
    assert known.find(request) == mine
    known.end(Response(), mine)
    for number in range(sessions._MAX_REVOKED + 1):
        known.end(Response(), dataclasses.replace(mine, id=str(number)))
    assert known.find(request) is None
    later, request = begin_session(known)
    assert known.find(request) == later
