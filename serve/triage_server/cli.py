"""``triage-server``: verify the bundle, run its self-test, then serve until told to stop.

Imports uvicorn, the bundle's store and scorer, and the modules beside it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from lesion_triage import __version__
from lesion_triage.bundle.files import write_atomically
from lesion_triage.errors import ConfigError, LesionTriageError
from triage_server import commands
from triage_server.app import create_app
from triage_server.audit_log import AuditLog
from triage_server.hot_swap import BundleSwapper, VerifiedBundle, load_tls_certificate, verify_bundle
from triage_server.middleware import log, log_to_stderr
from triage_server.protocol import LimitedProtocol, make_protocol_class
from triage_server.settings import Settings, load, refuse_exposure
from triage_server.timestamps import clock_warning
from triage_server.tls import TlsListener

_FILES_BESIDE_CONNECTIONS = 64
"""Open files that are no connection of a client: logs, databases, libraries, connections to other servers."""


class DrainingServer(uvicorn.Server):
    """uvicorn that announces when it listens, and looks at its bundle again on SIGHUP."""

    def __init__(
        self,
        config: uvicorn.Config,
        announce: Callable[[], None],
        bundle_swapper: BundleSwapper,
        handshake_timeout_s: float,
    ) -> None:
        super().__init__(config)
        self._announce, self._bundle_swapper = announce, bundle_swapper
        self._handshake_timeout_s = handshake_timeout_s
        self._tls_listeners: list[TlsListener] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then announce; shut down again if that fails.

        Raises:
            ConfigError: the ready file cannot be written.
        """
        context = self.config.ssl
        await super().startup(sockets if context is None else [])
        if context is not None:
            self._tls_listeners = [
                TlsListener(one, context, self._protocol, self._handshake_timeout_s) for one in sockets or []
            ]
        loop = asyncio.get_running_loop()
        # Not the loop's own handler: once it is removed, SIGHUP ends the process, its audit log still open.
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self._bundle_swapper.check_now))
        self._watching = loop.create_task(self._bundle_swapper.watch())
        try:
            self._announce()
        except ConfigError:
            await self.shutdown(sockets)
            raise

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop watching for another bundle, then drain."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._watching.cancel()
        for tls_listener in self._tls_listeners:
            tls_listener.close()
        await super().shutdown(sockets)
        if self.force_exit:  # a second Ctrl-C: uvicorn then leaves requests and the application as they are
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()
        for connection in list(self.server_state.connections):
            connection.shutdown()  # connections that linger after a last-moment answer
        await asyncio.sleep(0)

    def _protocol(self) -> LimitedProtocol:
        made: type[LimitedProtocol] = self.config.http_protocol_class  # type: ignore[assignment]
        return made(self.config, self.server_state, self.lifespan.state)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``triage-server``.

    Returns:
        0 after a graceful shutdown; 2 after one sentence on stderr; 130 if Ctrl-C ended a subcommand; 1 if
        ``audit verify`` found the log altered.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        if words and words[0] in commands.SUBCOMMANDS:
            return _run_subcommand(words)
        serve(load(words, os.environ))
    except LesionTriageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def _run_subcommand(words: Sequence[str]) -> int:
    if sys.stdout is None:  # as Python has it where the caller closed it
        raise ConfigError(
            "Standard output is closed, and what this command prints would be lost: send it to a file."
        )
    try:
        status = commands.main(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of the output has closed it
        return _discard_output(0)
    except OSError as error:
        if error.filename is not None:  # not stdout, and not a file of ours, handled where it is opened
            raise
        print(
            f"OSError: the output of this command cannot be written ({error.strerror}). If it created a "
            "key that nobody saw, revoke that key.",
            file=sys.stderr,
        )
        return _discard_output(2)
    return status


def _discard_output(status: int) -> int:
    """Return the status, with stdout on /dev/null: Python would try to flush it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the cases under way.

    Raises:
        BundleError: the bundle is altered, incomplete or not signed by a trusted key, or fails its self-test.
        ConfigError: the server cannot listen on its address; keys, a TLS certificate or a message catalogue
            cannot be read; or the ready file cannot be written.
        AuditLogError: the audit log cannot be continued.
    """
    _remove_ready_file(settings.ready_file)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is a bundle to look at again
    with ExitStack() as closing:
        server, listener = _ready_to_run(settings, closing)
        for number in (signal.SIGTERM, signal.SIGINT):
            # After draining, uvicorn raises the signal again for the handler that it found here.
            signal.signal(number, server.handle_exit)
        closing.callback(_remove_ready_file, settings.ready_file)
        server.run(sockets=[listener])


def _ready_to_run(settings: Settings, closing: ExitStack) -> tuple[DrainingServer, socket.socket]:
    """The server and where it listens; raises as ``serve``.

    No variable that lives as long as the server may hold the first bundle: after a swap its network would
    stay in memory.
    """
    served = verify_bundle(settings.bundle, settings)
    shadows = [verify_bundle(folder, settings) for folder in settings.shadow_bundles]
    audit = None
    if settings.audit_log is not None:
        audit = AuditLog(
            settings.audit_log, settings.audit_rotate_bytes, _opening_event(served, shadows, settings)
        )
        closing.callback(audit.close, {"event": "closed"})
    app = create_app(served.bundle, served.scorer, settings, audit, [shadow.scorer for shadow in shadows])
    config = _uvicorn_config(app, settings)
    listener = closing.enter_context(_listen(settings))
    url = _url(listener, settings)
    warnings = list(_warnings(served, settings, audit, _make_room_for_connections(settings)))
    name = f"{served.bundle.header.name} {served.bundle.sha256[:16]}"

    def announce() -> None:
        for warning in warnings:
            log.warning(warning)
        if audit is not None:
            log.info("audit", extra={"fields": {"sequence": audit.end.sequence, "hash": audit.end.head}})
        if settings.ready_file is not None:
            _write_ready_file(settings.ready_file, url)
        _print_line(f"triage-server ready at {url} with bundle {name}")

    log_to_stderr()
    bundle_swapper = BundleSwapper(app, served, settings, audit, config.ssl)
    return DrainingServer(config, announce, bundle_swapper, settings.head_timeout_s), listener


def _opening_event(
    served: VerifiedBundle, shadows: Sequence[VerifiedBundle], settings: Settings
) -> dict[str, object]:
    return {
        "event": "opened",
        "program": f"lesion-triage {__version__}",
        "bundle_sha256": served.bundle.sha256,
        "certificate_id": served.bundle.certificate.certificate_id(),
        "bundle_key_id": served.signer,
        "shadow_bundles_sha256": [shadow.bundle.sha256 for shadow in shadows],
        "callers": "known" if settings.authenticates_callers else "nobody asked",
    }


def _make_room_for_connections(settings: Settings) -> int:
    """Raise this process's limit on open files to what its connections and files may take, if it may.

    Returns:
        The limit now, at most as many as wanted. Connections beyond it are closed without a word.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _FILES_BESIDE_CONNECTIONS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):  # macOS has a lower limit than it names
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
        soft = possible
    return soft


def _warnings(
    served: VerifiedBundle, settings: Settings, audit: AuditLog | None, files: int
) -> Iterator[str]:
    if served.bundle.header.synthetic:
        yield "this bundle was made from drawn pictures; it must never be used on people"
    if served.signer is None:
        yield "the signature of this bundle is not checked (TRIAGE_ALLOW_UNSIGNED)"
    if audit is None:
        yield "no audit log (TRIAGE_AUDIT_LOG): what is answered here cannot be proved later"
    elif told := clock_warning("the last line of the audit log", audit.continued_from):
        yield told
    if files < settings.max_connections + _FILES_BESIDE_CONNECTIONS:
        yield (
            f"this process may open {files} files, fewer than {settings.max_connections} connections "
            f"(TRIAGE_MAX_CONNECTIONS) and {_FILES_BESIDE_CONNECTIONS} other files take: connections beyond "
            "that are closed without a log line; raise it (ulimit -n, LimitNOFILE), or lower the setting"
        )
    if settings.behind_authenticating_proxy and not settings.authenticates_callers:
        yield (
            "anybody who reaches this server around its proxy is answered "
            "(TRIAGE_BEHIND_AUTHENTICATING_PROXY)"
        )


def _uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        loop="auto",
        http=make_protocol_class(settings, app.state.service.telemetry),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )
    try:
        if settings.tls_cert is not None:
            # uvicorn would wait for a passphrase
            load_tls_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"TRIAGE_TLS_CERT and TRIAGE_TLS_KEY cannot be used ({error.strerror}): expected a PEM chain and "
            "the unencrypted key that belongs to it."
        ) from None
    return config


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {settings.host}, port {settings.port} ({error.strerror}): "
            "expected an address of this machine; choose another port, or 0 for any free one."
        ) from None
    refuse_exposure(settings, listener.getsockname()[0])
    return listener


def _url(listener: socket.socket, settings: Settings) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _remove_ready_file(ready_file: Path | None) -> None:
    """Remove the ready file of an earlier run, which would point scripts to a server that is gone.

    Raises:
        ConfigError: its folder does not exist, or the path leads to anything else, which stays as it is.
    """
    if ready_file is None:
        return
    if not ready_file.parent.is_dir():
        raise ConfigError(
            f"The folder of the ready file {ready_file} does not exist: create {ready_file.parent}."
        )
    try:
        if not os.path.lexists(ready_file):
            return
        if ready_file.is_symlink() or not ready_file.is_file() or not _names_a_server(ready_file):
            raise ConfigError(
                f"{ready_file} exists and is no ready file of this program: name another file, or remove it."
            )
        ready_file.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(ready_file, error) from None


def _names_a_server(file: Path) -> bool:
    """Whether a file begins as a URL; an empty one, as ``mktemp`` makes, may be replaced too."""
    with file.open("rb") as stream:
        return stream.read(4) in (b"http", b"")


def _write_ready_file(ready_file: Path, url: str) -> None:
    try:
        write_atomically(ready_file, f"{url}\n".encode())
    except OSError as error:
        raise _unusable(ready_file, error) from None


def _print_line(line: str) -> None:
    """Print a line on stdout; a full disk there must not stop the server."""
    try:
        print(line, flush=True)
    except OSError as error:
        log.error("the ready line cannot be written: %s", error.strerror)
        _discard_output(0)


def _unusable(ready_file: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The ready file {ready_file} cannot be used ({error.strerror}): expected the name of a file in a "
        "folder that this program may write."
    )
