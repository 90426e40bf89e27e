"""``triage-server``: verify the bundle, test it on its own pictures, then listen until told to stop.

Imports uvicorn, the bundle's store and scorer, and the rooms beside it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle, write_atomically
from lesion_triage.errors import ConfigError, LesionTriageError
from triage_server.app import create_app
from triage_server.envelope import log, log_to_stderr
from triage_server.settings import Settings, load, refuse_beyond_loopback


class DrainingServer(uvicorn.Server):
    """uvicorn that tells when it listens."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then announce."""
        await super().startup(sockets)
        self._announce()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``triage-server``; returns 0 after a drained stop, 2 after one sentence on stderr."""
    try:
        serve(load(argv, os.environ))
    except LesionTriageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the cases under way.

    Raises:
        BundleError: the bundle is altered, incomplete, or scores its own pictures differently here.
        ConfigError: the address cannot be listened on, the ready file has no folder to lie in, or a message
            catalogue cannot be used.
    """
    _withdraw(settings.ready_file)
    bundle = open_bundle(settings.bundle)
    codes = [flag.code for flag in bundle.policy.red_flags.flags]
    scorer = Scorer(bundle, Languages.for_flags(codes, settings.language, settings.catalogues))
    scorer.self_test()
    app = create_app(bundle, scorer, settings)
    with _listen(settings) as listener:
        url = _url(listener)

        def announce() -> None:
            if bundle.header.synthetic:
                log.warning("this bundle was made from drawn pictures; it must never be used on people")
            print(
                f"triage-server ready at {url} with bundle {bundle.header.name} {bundle.sha256[:16]}",
                flush=True,
            )
            if settings.ready_file is not None:
                write_atomically(settings.ready_file, f"{url}\n".encode())

        log_to_stderr()
        server = DrainingServer(_uvicorn_config(app, settings), announce)
        for number in (signal.SIGTERM, signal.SIGINT):
            # Once drained, uvicorn raises the signal again for the handler that it found here.
            signal.signal(number, server.handle_exit)
        try:
            server.run(sockets=[listener])
        finally:
            _withdraw(settings.ready_file)


def _uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="auto",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {settings.host}, port {settings.port} ({error.strerror}): "
            "choose another port, or 0 for any free one."
        ) from None
    refuse_beyond_loopback(listener.getsockname()[0])
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _withdraw(ready_file: Path | None) -> None:
    """A ready file from an earlier run would send scripts to a server that is gone."""
    if ready_file is None:
        return
    if not ready_file.parent.is_dir():
        raise ConfigError(f"The ready file {ready_file} has no folder to lie in: create {ready_file.parent}.")
    ready_file.unlink(missing_ok=True)
