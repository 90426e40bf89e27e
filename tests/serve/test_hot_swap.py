"""Another bundle takes over while a real server answers, or is refused and changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

import httpx_60s
import tiny_bundle as tiny
from lesion_triage.bundle import signing
from lesion_triage.bundle.store import Bundle, seal
from triage_server.audit_chain import files_of, verify
from triage_server.cli import main

JPEG, PNG = {"Content-Type": "image/jpeg"}, {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """Two bundles of one folder, with thresholds of their own."""
    folder = tmp_path_factory.mktemp("two")
    return tiny.make(folder / "a"), tiny.make(folder / "b", threshold=0.4)


@pytest.fixture
def link(two: tuple[Bundle, Bundle], tmp_path: Path) -> Path:
    """A link to the first of them."""
    link = tmp_path / "served"
    link.symlink_to(two[0].folder)
    return link


def point(link: Path, target: Path) -> None:
    draft = link.with_name("draft")
    draft.symlink_to(target)
    draft.replace(link)


def post(server: Any, picture: bytes, **headers: str) -> httpx.Response:
    return httpx_60s.post(f"{server.url}/v1/triage", content=picture, headers=JPEG | headers)


def served(server: Any) -> str:
    sha256: str = httpx_60s.get(f"{server.url}/v1/bundle").json()["bundle_sha256"]
    return sha256


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def metric(server: Any, name: str) -> float:
    lines = httpx_60s.get(f"{server.url}/metrics").text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files_of(folder) for line in file.read_bytes().splitlines()]


class HalfSent:
    """A request of which the server has read the first half."""

    def __init__(self, server: Any, picture: bytes) -> None:
        self._connection = socket.create_connection(server.address, timeout=60)
        self._rest = picture[len(picture) // 2 :]
        head = (
            "POST /v1/triage HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nConnection: close\r\n"
            f"Content-Length: {len(picture)}\r\nExpect: 100-continue\r\n\r\n"
        )
        self._connection.sendall(head.encode())
        assert self._connection.recv(100).startswith(b"HTTP/1.1 100")
        self._connection.sendall(picture[: len(picture) // 2])

    def finish(self) -> Any:
        self._connection.sendall(self._rest)
        answer = b"".join(iter(lambda: self._connection.recv(65536), b""))
        self._connection.close()
        return json.loads(answer.partition(b"\r\n\r\n")[2])


def test_bundle_is_swapped_refused_and_rolled_back_while_cases_are_answered(
    start: Any,
    two: tuple[Bundle, Bundle],
    link: Path,
    tmp_path: Path,
    draw: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = two
    folder, picture = tmp_path / "audit", draw()
    once = {"Idempotency-Key": "0123456789abcdef"}
    monkeypatch.setenv("TRIAGE_BUNDLE", str(link))
    monkeypatch.setenv("TRIAGE_ALLOW_UNSIGNED", "1")
    with start(link, tmp_path, "--workers-threads", 2, TRIAGE_AUDIT_LOG=str(folder)) as server:
        before = post(server, picture, **once)
        under_way = HalfSent(server, picture)
        assert main(["bundles", "activate", str(second.folder)]) == 0
        wait_for(lambda: served(server) == second.sha256)
        after = post(server, picture)
        old, new = under_way.finish(), after.json()
        assert [one["bundle_sha256"] for one in (before.json(), old, new)] == [
            first.sha256,
            first.sha256,
            second.sha256,
        ]
        assert (old["threshold"], new["threshold"]) == (0.5, 0.4)
        assert post(server, picture, **once).content == before.content
        page = httpx_60s.get(f"{server.url}/metrics").text
        assert f'triage_bundle_info{{bundle="{second.sha256}"' in page.replace("'", '"')
        assert first.sha256 not in page

        spoilt = tmp_path / "spoilt"
        shutil.copytree(first.folder, spoilt)
        with (spoilt / "model.onnx").open("r+b") as stream:
            stream.write(b"x")
        point(link, spoilt)
        wait_for(lambda: metric(server, "triage_swap_failed") == 1)
        assert httpx_60s.get(f"{server.url}/health/ready").status_code == 200
        assert served(server) == second.sha256
        assert "model.onnx: changed since it was sealed" in server.text()

        assert main(["bundles", "rollback"]) == 0
        wait_for(lambda: served(server) == first.sha256)
        assert metric(server, "triage_swap_failed") == 0
        assert server.stop() == 0
    verify(folder)
    lines = lines_of(folder)
    named = [(line["event"], line.get("bundle_sha256")) for line in lines]
    a, b = first.sha256, second.sha256
    expected = [("opened", a), ("answer", a), ("swapped", b), ("answer", b), ("answer", a), ("repeat", a)]
    assert named == [*expected, ("swap_refused", b), ("swapped", a), ("closed", None)]
    swapped, refused = lines[2], lines[6]
    assert (swapped["former_bundle_sha256"], swapped["bundle_key_id"]) == (a, None)
    assert swapped["certificate_id"] == second.certificate.certificate_id()
    assert swapped["former_certificate_id"] == first.certificate.certificate_id()
    assert refused["problem"] == "BundleError"


def test_no_case_is_lost_or_answered_by_a_mixture_while_the_link_is_turned_again_and_again(
    start: Any, two: tuple[Bundle, Bundle], link: Path, tmp_path: Path, draw: Any
) -> None:
    threshold = {two[0].sha256: 0.5, two[1].sha256: 0.4}
    certificate = {one.sha256: one.certificate.certificate_id() for one in two}
    heard: list[dict[str, Any]] = []
    over = threading.Event()
    with start(link, tmp_path, TRIAGE_AUDIT_LOG=str(tmp_path / "audit")) as server:

        def ask() -> None:
            with httpx_60s.Client(base_url=server.url, headers=JPEG) as client:
                while not over.is_set():
                    response = client.post("/v1/triage", content=draw())
                    heard.append(response.json() | {"status": response.status_code})

        clients = [threading.Thread(target=ask) for _ in range(3)]
        for client in clients:
            client.start()
        for turn in range(1, 5):
            target = two[turn % 2]
            point(link, target.folder)
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda target=target: served(server) == target.sha256)  # type: ignore[misc]
        over.set()
        for client in clients:
            client.join()
        assert server.stop() == 0
    assert {one["status"] for one in heard} == {200}
    assert {one["bundle_sha256"] for one in heard} == set(threshold)
    for one in heard:
        assert one["threshold"] == threshold[one["bundle_sha256"]]
        assert one["certificate_id"] == certificate[one["bundle_sha256"]]
    verify(tmp_path / "audit")
    answers = [line for line in lines_of(tmp_path / "audit") if line["event"] == "answer"]
    assert len(answers) == len(heard)
    assert all(line["threshold"] == threshold[line["bundle_sha256"]] for line in answers)


def resident_mb(server: Any) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory a process has")
def test_a_bundle_that_was_replaced_leaves_the_memory(start: Any, tmp_path: Path) -> None:
    size = 64 << 20
    varint = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
    graph = tiny.GRAPH + b"\x32" + varint + bytes(size)  # 6: the description of an ONNX model
    bundles = []
    for name, threshold in (("a", 0.5), ("b", 0.4)):
        made = tiny.seal_arguments(threshold=threshold)
        certificate = tiny.certificate_for(made["policy"], graph)
        bundles.append(seal(tmp_path / name, **{**made, "graph": graph, "certificate": certificate}))
    link = tmp_path / "served"
    link.symlink_to(bundles[0].folder)
    with start(link, tmp_path) as server, httpx.Client(timeout=60) as kept_alive:
        before = resident_mb(server)
        for bundle in (bundles[1], bundles[0]):
            kept_alive.post(f"{server.url}/v1/triage", content=tiny.picture_bytes("below"), headers=PNG)
            point(link, bundle.folder)
            wait_for(lambda bundle=bundle: served(server) == bundle.sha256)  # type: ignore[misc]
            wait_for(lambda: resident_mb(server) < before + 32)
    assert before > 64


def test_who_is_trusted_is_read_again_at_a_swap(start: Any, tmp_path: Path) -> None:
    trusted, bundles = tmp_path / "trusted", []
    trusted.mkdir()
    for name in ("maker", "stranger"):
        signing.generate_key_pair(tmp_path / name, None)
        bundle = tiny.make(tmp_path / f"by-{name}", threshold=0.5 if name == "maker" else 0.4)
        signing.sign(bundle, signing.read_private_key(tmp_path / f"{name}.pem", None))
        bundles.append(bundle)
    shutil.copy(tmp_path / "maker.pub.pem", trusted)
    link = tmp_path / "served"
    link.symlink_to(bundles[0].folder)
    with start(link, tmp_path, TRIAGE_TRUSTED_KEYS=str(trusted)) as server:
        point(link, bundles[1].folder)
        wait_for(lambda: metric(server, "triage_swap_failed") == 1)
        assert served(server) == bundles[0].sha256
        shutil.copy(tmp_path / "stranger.pub.pem", trusted)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: served(server) == bundles[1].sha256)
        link.unlink()
        wait_for(lambda: metric(server, "triage_swap_failed") == 1)
        assert served(server) == bundles[1].sha256
        assert server.stop() == 0


def test_passphrase_of_a_key_is_asked_of_nobody_and_the_server_goes_on(
    start: Any, tiny_bundle: Path, issue: Callable[[Path], tuple[Path, Path]], tmp_path: Path
) -> None:
    cert, key = issue(tmp_path)
    waiting = tmp_path / "a terminal at which nobody types"
    os.mkfifo(waiting)
    under = ("setsid", "sh", "-c", 'exec "$@" <>"$0"', waiting)
    tls = {"TRIAGE_TLS_CERT": str(cert), "TRIAGE_TLS_KEY": str(key)}
    with start(tiny_bundle, tmp_path, under=under, **tls) as server:
        locked = BestAvailableEncryption(b"four words")
        read = load_pem_private_key(key.read_bytes(), None)
        key.write_bytes(read.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "TLS certificate refused" in server.text())
        assert ssl.get_server_certificate(server.address, timeout=60) == cert.read_text()
        assert server.stop() == 0
    unready = pytest.raises(AssertionError, match="expected a PEM chain and the unencrypted key")
    with unready, start(tiny_bundle, tmp_path, under=under, **tls):
        pass


def test_renewed_certificate_is_used_at_the_next_connection_and_a_broken_one_is_not(
    launch: Any, issue: Callable[[Path], tuple[Path, Path]], tmp_path: Path
) -> None:
    cert, key = issue(tmp_path)

    def shown(server: Any) -> str:
        return ssl.get_server_certificate(server.address)

    with launch(TRIAGE_TLS_CERT=str(cert), TRIAGE_TLS_KEY=str(key)) as server:
        assert shown(server) == cert.read_text()
        kept = cert.read_bytes()
        issue(tmp_path)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: shown(server) == cert.read_text())
        renewed = cert.read_text()
        cert.write_bytes(kept)  # which does not belong to the new key
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "TLS certificate refused" in server.text())
        assert shown(server) == renewed
        assert server.stop() == 0
