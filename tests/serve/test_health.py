from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import httpx_60s


def asked(server: Any, **variables: str) -> int:
    port = str(server.address[1])
    command = [sys.executable, "-m", "triage_server.health"]
    return subprocess.run(command, env=variables | {"TRIAGE_PORT": port}, check=False, timeout=60).returncode


def test_command_says_what_the_server_says_of_itself(
    launch: Callable[..., Any], certificate: tuple[Path, Path], monkeypatch: Any
) -> None:
    path = {"PYTHONPATH": str(Path(__file__).parents[2] / "serve")}
    cert, key = certificate
    with launch(TRIAGE_TLS_CERT=str(cert), TRIAGE_TLS_KEY=str(key)) as server:
        assert asked(server, **path, TRIAGE_TLS_CERT=str(cert), TRIAGE_HOST="0.0.0.0") == 0
        assert asked(server, **path) == 1  # plain http to a port of TLS
        assert server.stop() == 0
        assert asked(server, **path, TRIAGE_TLS_CERT=str(cert)) == 1


@pytest.mark.parametrize("port", ["", "http", "99999"])
def test_a_port_that_cannot_be_is_not_ready_and_no_traceback(port: str) -> None:
    path = str(Path(__file__).parents[2] / "serve")
    command = [sys.executable, "-m", "triage_server.health"]
    ended = subprocess.run(
        command, env={"PYTHONPATH": path, "TRIAGE_PORT": port}, check=False, timeout=60, capture_output=True
    )
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_full_server_is_not_ready(launch: Callable[..., Any]) -> None:
    path = {"PYTHONPATH": str(Path(__file__).parents[2] / "serve")}
    with launch("--workers-threads", 1, TRIAGE_QUEUE="0") as server:
        head = {"Content-Type": "image/jpeg", "Content-Length": "10", "Expect": "100-continue"}
        with httpx_60s.Client(base_url=server.url) as client:
            assert asked(server, **path) == 0

            def body() -> Any:
                yield b"x"
                assert asked(server, **path) == 1  # while this case has the only place
                yield b"y" * 9

            assert client.post("/v1/triage", content=body(), headers=head).status_code == 422
        assert server.stop() == 0
