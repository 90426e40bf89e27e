"""The bundle in use, and how another replaces it while the server runs.

Imports the bundle's store, scorer and signatures, the service and the audit log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fastapi import FastAPI

from lesion_triage.bundle import signing
from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import HEADER_FILE, Bundle, open_bundle
from lesion_triage.errors import AuditLogError, LesionTriageError, SignatureError
from triage_server.audit_log import AuditLog
from triage_server.freed_memory import release_freed_memory
from triage_server.service import Service
from triage_server.settings import Settings

_POLL_INTERVAL_S = 1.0

log = logging.getLogger("triage_server")


@dataclass(frozen=True)
class VerifiedBundle:
    """A bundle that has passed every check required before a case may reach it."""

    bundle: Bundle
    scorer: Scorer
    signer: str | None
    """Id of the key that signed it; None if signatures are not checked."""


def verify_bundle(folder: Path, settings: Settings) -> VerifiedBundle:
    """Verify a bundle as at the start of a server: hashes, signature, languages, self-test.

    Args:
        folder: of the bundle, or a link to it. The link is followed once, so two bundles cannot be mixed.
        settings: say whose signatures are trusted, and which texts the site has.

    Raises:
        BundleError: the bundle is altered, incomplete or not signed by a trusted key, or fails its self-test.
        ConfigError: a message catalogue or the trusted keys cannot be read.
    """
    bundle = open_bundle(Path(os.path.realpath(folder)))  # Path.resolve raises at a link to itself
    signer = _signer(bundle, settings)
    codes = [flag.code for flag in bundle.policy.red_flags.flags]
    scorer = Scorer(bundle, Languages.for_flags(codes, settings.language, settings.catalogues))
    scorer.self_test()
    release_freed_memory()
    return VerifiedBundle(bundle, scorer, signer)


def _signer(bundle: Bundle, settings: Settings) -> str | None:
    """Id of the key that signed the bundle, verified; None if signatures are not checked.

    Raises:
        SignatureError: no trusted key signed it, or the settings name none.
    """
    if settings.trusted_keys is not None:
        return signing.verify(bundle, signing.read_trusted_keys(settings.trusted_keys)).key_id
    if not settings.allow_unsigned:
        raise SignatureError(
            "No signer is trusted: set TRIAGE_TRUSTED_KEYS to the public keys of those who sign your "
            "bundles, or TRIAGE_ALLOW_UNSIGNED=1 to serve without knowing who made a bundle."
        )
    if bundle.signature is not None:
        signing.read_signature(bundle)
    return None


def load_tls_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Load the certificate and key of these settings into a context.

    Raises:
        OSError: they cannot be used; ssl.SSLError is one.
    """
    assert settings.tls_cert is not None
    # With no password given, OpenSSL would ask the terminal for an encrypted key's, and block everything.
    context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")


class BundleSwapper:
    """Watches what ``settings.bundle`` names, and swaps bundles, on the event loop."""

    def __init__(
        self,
        app: FastAPI,
        first: VerifiedBundle,
        settings: Settings,
        audit: AuditLog | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Begin with the bundle that ``app`` already serves.

        Args:
            app: of ``create_app``; each request keeps the service that it found first.
            first: what it serves.
            settings: of the operator.
            audit: where each swap is recorded before it is made; None: nowhere.
            tls: context of the listener, which gets renewed certificates; None: no TLS here.
        """
        self._app, self._served, self._settings = app, first, settings
        self._audit, self._tls = audit, tls
        state = _state(settings.bundle)
        # None if the link was changed since: the first look then tries what is there now.
        self._last_state = state if state and state[0] == str(first.bundle.folder) else None
        self._check_requested = asyncio.Event()
        self._failed = False
        telemetry = self._service.telemetry
        telemetry.add_gauge(
            "triage_swap_failed",
            "1 if the last bundle that was tried was refused; the one before it is served.",
            lambda: self._failed,
        )

    def check_now(self) -> None:
        """Request a look at certificate, trusted keys and bundle, even if nothing seems to have changed."""
        self._check_requested.set()

    async def watch(self) -> None:
        """Look every second, and at once when requested, until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._check_requested.wait(), _POLL_INTERVAL_S)
            check_requested = self._check_requested.is_set()
            self._check_requested = asyncio.Event()
            if check_requested:
                self._renew_certificate()
            state = await asyncio.to_thread(_state, self._settings.bundle)
            if check_requested or state != self._last_state:
                self._last_state = await self._try_swap(state)

    async def _try_swap(self, state: _State) -> _State:
        """Try the bundle that is there now. Returns the state not to try again; None: try again."""
        if self._audit is not None and not await self._audit.probe():
            return None  # no case is answered either; a swap that could not be proved can wait
        state = await self._verify_and_swap(state)
        await asyncio.to_thread(release_freed_memory)
        return state

    async def _verify_and_swap(self, state: _State) -> _State:
        try:
            candidate = await asyncio.to_thread(verify_bundle, self._settings.bundle, self._settings)
            if candidate.bundle.sha256 == self._served.bundle.sha256:
                self._served = replace(self._served, signer=candidate.signer)
                self._failed = False
                log.info("bundle unchanged", extra={"fields": {"bundle": candidate.bundle.sha256[:16]}})
                return state
            await self._swap_to(candidate)
        except AuditLogError:
            return None
        except LesionTriageError as error:
            await self._refuse(type(error).__name__, str(error))
        except Exception as error:  # the old bundle must keep serving, and the watch must go on
            log.error("internal error", exc_info=error)
            await self._refuse(type(error).__name__, "the bundle cannot be checked (internal error).")
        return state

    async def _swap_to(self, candidate: VerifiedBundle) -> None:
        """Record the swap, then make it, so that no answer of the new bundle precedes its line."""
        before, bundle = self._served, candidate.bundle
        certificate_id = bundle.certificate.certificate_id()
        if self._audit is not None:
            await self._audit.append(
                {
                    "event": "swapped",
                    "bundle_sha256": bundle.sha256,
                    "certificate_id": certificate_id,
                    "bundle_key_id": candidate.signer,
                    "former_bundle_sha256": before.bundle.sha256,
                    "former_certificate_id": before.bundle.certificate.certificate_id(),
                    "former_bundle_key_id": before.signer,
                }
            )
        service = self._service
        self._app.state.service = replace(
            service,
            bundle=bundle,
            scorer=candidate.scorer,
            recorder=service.recorder.for_bundle(bundle.sha256, certificate_id),
        )
        service.telemetry.set_bundle(bundle.sha256, certificate_id)
        service.telemetry.count_swap("swapped")
        self._served, self._failed = candidate, False
        fields = {
            "bundle": bundle.sha256[:16],
            "certificate": certificate_id,
            "former": before.bundle.sha256[:16],
        }
        log.warning("bundle swapped", extra={"fields": fields})
        if bundle.header.synthetic:
            log.warning("this bundle was made from drawn pictures; it must never be used on people")

    async def _refuse(self, kind: str, sentence: str) -> None:
        self._failed = True
        self._service.telemetry.count_swap("refused")
        kept = self._served.bundle.sha256
        log.error("bundle refused, %s keeps serving: %s", kept[:16], sentence)
        if self._audit is not None:
            with suppress(AuditLogError):
                await self._audit.append({"event": "swap_refused", "problem": kind, "bundle_sha256": kept})

    def _renew_certificate(self) -> None:
        """Reload it for new connections. A throwaway context goes first: half a renewal would break them."""
        if self._tls is None:
            return
        try:
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._tls):
                load_tls_certificate(context, self._settings)
        except OSError as error:  # ssl.SSLError is one
            log.error("TLS certificate refused, the previous one stays in use: %s", error.strerror)
        else:
            log.info("TLS certificate reloaded")

    @property
    def _service(self) -> Service:
        service: Service = self._app.state.service
        return service


_State = tuple[str, int, int] | None


def _state(bundle: Path) -> _State:
    """Where the link leads, and its header's inode and time; None: nowhere. The header is written last."""
    try:
        folder = bundle.resolve()
        found = (folder / HEADER_FILE).stat()
    except (OSError, RuntimeError):  # RuntimeError: a link to itself
        return None
    return str(folder), found.st_ino, found.st_mtime_ns
