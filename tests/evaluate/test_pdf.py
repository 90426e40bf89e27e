"""A page becomes a PDF without network, or the reason is one sentence."""

from __future__ import annotations

import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lesion_triage.errors import ReportError
from lesion_triage.evaluate.pdf import BROWSERS, to_pdf

needs_browser = pytest.mark.skipif(
    not any(map(shutil.which, BROWSERS)), reason="no browser: printing to PDF was NOT tested; `make browser`"
)


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><title>t</title><h1>A page</h1>")
    return path


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with nothing on it but what the test puts there."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def stand_in(folder: Path, script: str) -> None:
    path = folder / "chromium"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_missing_browser_is_said_with_the_way_to_get_one(page, programs):
    with pytest.raises(
        ReportError, match=r"expected one of chromium.*apt-get install chromium.*make browser"
    ):
        to_pdf(page, page.with_suffix(".pdf"))
    assert not page.with_suffix(".pdf").exists()


def test_missing_page_is_refused(tmp_path):
    with pytest.raises(ReportError, match="expected a report's page"):
        to_pdf(tmp_path / "none.html", tmp_path / "none.pdf")


def test_browser_that_fails_leaves_no_file_and_its_last_word(page, programs):
    stand_in(programs, "echo first >&2; echo it is broken >&2; exit 3")
    with pytest.raises(ReportError, match=r"status 3: it is broken"):
        to_pdf(page, page.with_suffix(".pdf"))
    assert not page.with_suffix(".pdf").exists()


def test_browser_that_hangs_is_stopped(page, programs):
    stand_in(programs, "exec /bin/sleep 60")
    with pytest.raises(ReportError, match="within 1 seconds"):
        to_pdf(page, page.with_suffix(".pdf"), timeout_s=1)


@needs_browser
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_browser_prints_and_asks_nobody(tmp_path, host):
    """A page without the report's own policy, so that only the browser's options hold it back."""
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = tmp_path / "page.html"
    address = f"http://{host}:{server.server_port}/a.png"
    page.write_text(f'<!doctype html><title>t</title><img src="{address}" alt="x"><h1>A</h1>')
    try:
        to_pdf(page, tmp_path / "new" / "page.pdf")
    finally:
        server.shutdown()
        server.server_close()
    assert (tmp_path / "new" / "page.pdf").read_bytes().startswith(b"%PDF")
    assert asked == []
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.pdf"]
