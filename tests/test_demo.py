from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from lesion_triage import demo


class Answering(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"disposition": "needs_in_person"}')

    def log_message(self, *_: object) -> None:
        pass


def test_the_server_of_the_demonstration_is_asked_directly_where_a_proxy_leads_to_the_internet(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # as on most computers of a hospital; nobody listens
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        answer = demo._post_picture(f"http://127.0.0.1:{server.server_port}", b"a picture")
    assert answer == {"disposition": "needs_in_person"}
