"""Calls endpoints without FastAPI's preparations. Imports FastAPI's and Starlette's routing.

For each call FastAPI prepares dependencies, body models and background tasks. That is a tenth of the event
loop's time for a case, and no endpoint here has any: each takes the request and returns a response. FastAPI
still describes the endpoints for OpenAPI; only the call uses Starlette's plain route.
"""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match, Route
from starlette.types import Scope


class _FastRoute(Route):
    """A plain route that the log can name by its template, as FastAPI's own."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether this route has the path, and then the method."""
        match, child = super().matches(scope)
        if match is not Match.NONE:
            child["route"] = self
        return match, child


def add_fast_routes(app: FastAPI, *routers: APIRouter) -> None:
    """Let all routes of these routers of ``app`` be called without FastAPI's preparations.

    Starlette's plain route also answers HEAD where it answers GET; many supervisors send HEAD.
    """
    app.router.routes[:0] = [
        _FastRoute(route.path, route.endpoint, methods=list(route.methods or ()), include_in_schema=False)
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
    ]
