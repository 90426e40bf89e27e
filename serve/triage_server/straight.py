"""A shorter way to the endpoints. Imports FastAPI's and Starlette's routing.

FastAPI prepares each call for dependencies, body models and background tasks. That is a tenth of the event
loop's time for a case, and no endpoint here has any: each takes the request and gives a response. What
FastAPI describes in its document stays; only the call goes by Starlette's plain route.
"""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match, Route
from starlette.types import Scope


class _Straight(Route):
    """Told to the log as FastAPI's own routes are: by its template."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the path, and then the method, is this route's."""
        match, child = super().matches(scope)
        if match is not Match.NONE:
            child["route"] = self
        return match, child


def straighten(app: FastAPI, *routers: APIRouter) -> None:
    """Let all of these routers of ``app`` be called without FastAPI's preparations.

    Where Starlette's plain route takes GET it takes HEAD, by which many a supervisor asks.
    """
    app.router.routes[:0] = [
        _Straight(route.path, route.endpoint, methods=list(route.methods or ()), include_in_schema=False)
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
    ]
