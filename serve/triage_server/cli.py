"""``triage-server``: verify the bundle, test it on its own pictures, then listen until told to stop.

Imports uvicorn, the bundle's store and scorer, and the rooms beside it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from lesion_triage import __version__
from lesion_triage.bundle import signing
from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import Bundle, open_bundle, write_atomically
from lesion_triage.errors import ConfigError, LesionTriageError, SignatureError
from triage_server import office
from triage_server.app import create_app
from triage_server.audit_log import AuditLog
from triage_server.envelope import log, log_to_stderr
from triage_server.protocol import guarded
from triage_server.settings import Settings, load, refuse_exposure


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
    """Entry point of ``triage-server``.

    Returns:
        0 after a drained stop; 2 after one sentence on stderr; of ``audit verify`` 1 if the log was altered.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        if words and words[0] in office.DESKS:
            return office.main(words)
        serve(load(words, os.environ))
    except LesionTriageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the cases under way.

    Raises:
        BundleError: the bundle is altered, incomplete, signed by nobody trusted, or scores its own pictures
            differently here.
        ConfigError: the address cannot be listened on, keys or a message catalogue cannot be read, or the
            ready file has no folder to lie in.
        AuditLogError: the audit log cannot be taken over.
    """
    _withdraw(settings.ready_file)
    bundle = open_bundle(settings.bundle)
    signer = _signer(bundle, settings)
    codes = [flag.code for flag in bundle.policy.red_flags.flags]
    scorer = Scorer(bundle, Languages.for_flags(codes, settings.language, settings.catalogues))
    scorer.self_test()
    with ExitStack() as closing:
        audit = None
        if settings.audit_log is not None:
            audit = AuditLog(
                settings.audit_log, settings.audit_rotate_bytes, _begun(bundle, signer, settings)
            )
            closing.callback(audit.close, {"event": "closed"})
        config = _uvicorn_config(create_app(bundle, scorer, settings, audit), settings)
        listener = closing.enter_context(_listen(settings))
        url = _url(listener, settings)

        def announce() -> None:
            for warning in _warnings(bundle, signer, settings):
                log.warning(warning)
            if audit is not None:
                log.info("audit", extra={"fields": {"sequence": audit.end.sequence, "hash": audit.end.head}})
            print(
                f"triage-server ready at {url} with bundle {bundle.header.name} {bundle.sha256[:16]}",
                flush=True,
            )
            if settings.ready_file is not None:
                write_atomically(settings.ready_file, f"{url}\n".encode())

        log_to_stderr()
        server = DrainingServer(config, announce)
        for number in (signal.SIGTERM, signal.SIGINT):
            # Once drained, uvicorn raises the signal again for the handler that it found here.
            signal.signal(number, server.handle_exit)
        closing.callback(_withdraw, settings.ready_file)
        server.run(sockets=[listener])


def _signer(bundle: Bundle, settings: Settings) -> str | None:
    """Id of the key that signed the bundle, checked; None if nobody asked to know.

    Raises:
        SignatureError: nobody trusted signed it, or nobody said who is trusted.
    """
    if settings.trusted_keys is not None:
        return signing.verify(bundle, signing.read_trusted(settings.trusted_keys)).key_id
    if not settings.allow_unsigned:
        raise SignatureError(
            "Nobody said whose bundles are trusted: set TRIAGE_TRUSTED_KEYS to the public keys of those who "
            "sign them, or TRIAGE_ALLOW_UNSIGNED=1 to serve without knowing who made a bundle."
        )
    if bundle.signature is not None:
        signing.read_signature(bundle)
    return None


def _begun(bundle: Bundle, signer: str | None, settings: Settings) -> dict[str, object]:
    return {
        "event": "opened",
        "program": f"lesion-triage {__version__}",
        "bundle_sha256": bundle.sha256,
        "certificate_id": bundle.certificate.certificate_id(),
        "bundle_key_id": signer,
        "callers": "known" if settings.api_keys_file or settings.jwt_jwks else "nobody asked",
    }


def _warnings(bundle: Bundle, signer: str | None, settings: Settings) -> Iterator[str]:
    if bundle.header.synthetic:
        yield "this bundle was made from drawn pictures; it must never be used on people"
    if signer is None:
        yield "nobody checked who made this bundle (TRIAGE_ALLOW_UNSIGNED)"
    if settings.audit_log is None:
        yield "no audit log (TRIAGE_AUDIT_LOG): what is answered here cannot be proved later"
    if settings.behind_authenticating_proxy:
        yield "whoever reaches this server around its proxy is answered (TRIAGE_BEHIND_AUTHENTICATING_PROXY)"


def _uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        loop="auto",
        http=guarded(settings),
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
        config.load()
    except OSError as error:  # that of ssl is one
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
            "choose another port, or 0 for any free one."
        ) from None
    refuse_exposure(settings, listener.getsockname()[0])
    return listener


def _url(listener: socket.socket, settings: Settings) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _withdraw(ready_file: Path | None) -> None:
    """A ready file from an earlier run would send scripts to a server that is gone."""
    if ready_file is None:
        return
    if not ready_file.parent.is_dir():
        raise ConfigError(f"The ready file {ready_file} has no folder to lie in: create {ready_file.parent}.")
    ready_file.unlink(missing_ok=True)
