from __future__ import annotations

import dataclasses

from starlette.requests import Request
from starlette.responses import Response

from triage_server.page import sessions
from triage_server.page.sessions import Session, Sessions


def begun(known: Sessions) -> tuple[Session, Request]:
    response = Response()
    session = known.begin(response)
    cookie = response.headers["set-cookie"].partition(";")[0].encode()
    return session, Request({"type": "http", "headers": [(b"cookie", cookie)]})


def test_no_number_of_sign_outs_brings_an_ended_session_back() -> None:
    known = Sessions(encrypted=False)
    mine, request = begun(known)
    assert known.of(request) == mine
    known.end(Response(), mine)
    for number in range(sessions._MOST_ENDED + 1):
        known.end(Response(), dataclasses.replace(mine, id=str(number)))
    assert known.of(request) is None
    later, request = begun(known)
    assert known.of(request) == later
