"""A report's page as PDF, printed by a browser without network. Imports the errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lesion_triage.bundle.files import write_atomically
from lesion_triage.errors import ReportError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Looked for on PATH, in this order."""

_TIMEOUT_S = 180.0
_CHROMIUM_OPTIONS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    # The page's content security policy forbids every address; these forbid them to the browser itself.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
    "--no-pdf-header-footer",
)


def to_pdf(page: Path, pdf: Path, timeout_s: float = _TIMEOUT_S) -> None:
    """Print a page to a PDF file on A4.

    Args:
        page: HTML that loads nothing.
        pdf: written whole or not at all.
        timeout_s: after which the browser is stopped.

    Raises:
        ReportError: no page, no browser on PATH, or a browser that does not print it.
    """
    if not page.is_file():
        raise ReportError(f"{page}: expected a report's page to print, found none.")
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise ReportError(
            f"no browser to print {pdf.name} with: expected one of {', '.join(BROWSERS)} on PATH; on "
            "Debian `apt-get install chromium`, in a checkout `make browser`; or print it from any browser."
        )
    with tempfile.TemporaryDirectory(prefix="lesion-triage-print-") as scratch:
        printed = Path(scratch) / "page.pdf"
        # As root, as in most containers, Chromium only starts without its sandbox; the page has no script.
        sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
        command = [browser, *_CHROMIUM_OPTIONS, *sandbox, f"--user-data-dir={scratch}/profile"]
        command += [f"--print-to-pdf={printed}", page.resolve().as_uri()]
        try:
            done = subprocess.run(  # noqa: S603 - a browser by its name, our own options
                command, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise ReportError(
                f"{page}: {browser} has not printed it within {timeout_s:.0f} seconds; print it by hand."
            ) from None
        if done.returncode or not printed.is_file() or not printed.read_bytes().startswith(b"%PDF"):
            last_message = (done.stderr.decode(errors="replace").strip().splitlines() or ["silent"])[-1]
            raise ReportError(
                f"{page}: {browser} did not print it (status {done.returncode}: {last_message})."
            )
        try:
            pdf.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(pdf, printed.read_bytes())
        except OSError as error:
            raise ReportError(f"{pdf}: cannot be written ({error.strerror}); choose another file.") from None
