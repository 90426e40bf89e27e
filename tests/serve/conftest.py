"""What the server's tests share: a real process, the application without one, and pictures to send."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import FastAPI
from PIL import Image

from lesion_triage.bundle.scorer import Scorer
from triage_server.app import create_app
from triage_server.settings import Settings

PATIENCE_S = 60


@dataclass
class Running:
    """A server process that has said it is ready."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")


def environment(**more: str) -> dict[str, str]:
    """Without the variables of whoever runs the tests; the bundle of the tests is signed by nobody."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIAGE_")}
    unsigned = {} if "TRIAGE_TRUSTED_KEYS" in more else {"TRIAGE_ALLOW_UNSIGNED": "1"}
    return kept | unsigned | more


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "triage_server", *map(str, arguments)]


@contextmanager
def launched(
    bundle: Path, folder: Path, *arguments: object, under: Sequence[object] = (), **variables: str
) -> Iterator[Running]:
    """A server process; ``under`` is the beginning of a command line that ends with another program's."""
    ready, log = folder / "ready", folder / "log"
    ready.unlink(missing_ok=True)  # a server that was killed has left it
    line = [*map(str, under), *command("--bundle", bundle, "--port", 0, "--ready-file", ready, *arguments)]
    with log.open("wb") as stream:
        process = subprocess.Popen(line, stdout=stream, stderr=stream, env=environment(**variables))
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not ready.exists():
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.05)
        yield Running(ready.read_text(encoding="utf-8").strip(), process, log)
    finally:
        process.kill()
        process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with launched(tiny_bundle, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def start() -> Callable[..., Any]:
    """``with start(bundle, folder, "--port", 0, TRIAGE_QUEUE="0") as running``, for fixtures of a module."""
    return launched


@pytest.fixture
def launch(tiny_bundle: Path, tmp_path: Path) -> Callable[..., Any]:
    """A server of one's own: ``with launch("--workers-threads", 1, TRIAGE_QUEUE="0") as running``."""
    return lambda *arguments, **variables: launched(tiny_bundle, tmp_path, *arguments, **variables)


@pytest.fixture
def refused() -> Callable[..., str]:
    """Start a server that must not start: exit 2, one sentence on stderr, nothing on stdout."""

    def run(*arguments: object, **variables: str) -> str:
        done = subprocess.run(
            command(*arguments),
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    return run


@pytest.fixture(scope="session")
def scorer(tiny_bundle: Path) -> Scorer:
    return Scorer.open(tiny_bundle)


@pytest.fixture
def make_app(scorer: Scorer) -> Callable[..., FastAPI]:
    """The application in this process, with settings of the test's choice."""

    def make(other: Scorer | None = None, **settings: Any) -> FastAPI:
        chosen = Settings(bundle=scorer.bundle.folder, **{"threads": 1, **settings})
        answering = other or scorer
        return create_app(answering.bundle, answering, chosen)

    return make


@pytest.fixture
def ask() -> Callable[..., httpx.Response]:
    """One request to an application in this process; whatever escapes the application fails the test."""

    def one(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, **request)

        return asyncio.run(send())

    return one


def drawn(width_px: int = 240, height_px: int = 180, kind: str = "JPEG", seed: int = 0) -> bytes:
    levels = np.random.default_rng(seed).integers(60, 200, (height_px, width_px, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def draw() -> Callable[..., bytes]:
    """A picture of noise: gradable, and of nothing."""
    return drawn


@pytest.fixture(scope="session")
def bad_pictures() -> dict[str, tuple[bytes, str]]:
    """Files that cannot be used, each with the code that says why."""
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    huge = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")
    picture = drawn()
    return {
        "no bytes": (b"", "image_empty"),
        "text": (b"Dear colleague, please see Erika Mustermann.", "image_format_not_supported"),
        "cut off": (picture[: len(picture) // 2], "image_not_decodable"),
        "a hundred megapixels": (huge, "image_too_large"),
        "GIF": (b"GIF89a" + bytes(20), "image_format_not_supported"),
    }


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.fixture(scope="session")
def issue() -> Callable[[Path], tuple[Path, Path]]:
    """Write a self-signed certificate for loopback, and its key, into a folder; each time another."""
    return issued


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for loopback, and its key."""
    return issued(tmp_path)


def issued(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    today = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(key.private_bytes(*plain))
    return cert, secret
