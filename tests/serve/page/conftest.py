"""A browser without a screen, in this process: it keeps cookies, and sends the token of a form back."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, text

import tiny_bundle
from lesion_triage.bundle.history import History
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from lesion_triage.red_flags_file import read_red_flags
from tiny_bundle import picture_bytes
from triage_server.app import create_app
from triage_server.audit_log import AuditLog
from triage_server.page.context import Page
from triage_server.page.database import migrate_at, open_database
from triage_server.page.store import ReadingQueue
from triage_server.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')

OUTCOMES = re.compile(r'name="outcomes" value="([0-9]+)"')
READINGS = re.compile(r'name="readings" value="([0-9]+)"')
RECORDS = re.compile(r'name="records" value="([0-9]+)"')


@dataclass
class Browser:
    """One person's browser."""

    app: FastAPI
    language: str = "en"
    url: str = "http://127.0.0.1"
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)
    _token_cookies: str = ""
    _token: str = ""

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def one() -> httpx.Response:
            headers = {"Accept-Language": self.language, **request.pop("headers", {})}
            async with self.async_client() as client:
                response = await client.request(method, path, headers=headers, **request)
                self.cookies = client.cookies
                return response

        return asyncio.run(one())

    def async_client(self) -> httpx.AsyncClient:
        """For several requests under way together, with the cookies of this browser."""
        transport = httpx.ASGITransport(app=self.app)
        return httpx.AsyncClient(transport=transport, base_url=self.url, cookies=self.cookies)

    def get(self, path: str, **request: Any) -> httpx.Response:
        return self.send("GET", path, **request)

    def token(self) -> str:
        """Of this session; asked for once."""
        if str(self.cookies) != self._token_cookies:
            self._token = self._new_token()
            self._token_cookies = str(self.cookies)
        return self._token

    def _new_token(self) -> str:
        found = TOKEN.search(self.get("/ui/new").text) or TOKEN.search(self.get("/ui/login").text)
        assert found
        return found[1]

    def post(self, path: str, fields: dict[str, str] | None = None, **request: Any) -> httpx.Response:
        return self.send("POST", path, data={"form_token": self.token(), **(fields or {})}, **request)

    def sign_in(self, reader: str = "A. Reader", key: str = "") -> httpx.Response:
        self.get("/ui/login")
        return self.post("/ui/login", {"reader": reader, "key": key})

    def send_case(self, *pictures: bytes, **fields: str) -> str:
        """Its number."""
        files = [("image", ("IMG_0001.jpg", picture)) for picture in pictures]
        response = self.post("/ui/cases", fields, files=files)
        assert response.status_code == 303, response.text
        return httpx.URL(response.headers["location"]).params["case"]

    def read_case(
        self, number: str, decision: str = "agree", reason: str = "", page_text: str | None = None
    ) -> httpx.Response:
        """``page_text``: the text of the case's page that is answered; None: as it is now."""
        text = self.get(f"/ui/cases/{number}").text if page_text is None else page_text
        readings = READINGS.search(text)
        fields = {"decision": decision, "reason": reason, "readings": readings[1] if readings else ""}
        return self.post(f"/ui/cases/{number}/reading", fields)

    def record_outcome(
        self, number: str, needs: str, how: str = "histopathology", page_text: str | None = None
    ) -> httpx.Response:
        """As ``read_case``."""
        text = self.get(f"/ui/cases/{number}").text if page_text is None else page_text
        outcomes = OUTCOMES.search(text)
        fields = {
            "needs_in_person": needs,
            "confirmed_by": how,
            "outcomes": outcomes[1] if outcomes else "",
        }
        return self.post(f"/ui/cases/{number}/outcome", fields)

    def delete_case(self, number: str, **fields: str) -> httpx.Response:
        """With the page of the case as it is now; ``fields``: in place of those of the form."""
        records = RECORDS.search(self.get(f"/ui/cases/{number}").text)
        shown = {"sure": "yes", "records": records[1] if records else ""}
        return self.post(f"/ui/cases/{number}/delete", shown | fields)


def postgresql_binaries() -> Path | None:
    """Folder of PostgreSQL's server programs."""
    if (found := shutil.which("pg_config")) is None:
        return None
    said = subprocess.run([found, "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
    return Path(said) if (Path(said) / "initdb").exists() else None


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Address of a database server on a socket in a folder of its own."""
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip("NO POSTGRESQL: the queue was not tried on it; apt-get install postgresql")
    # Of its own, because paths of sockets are short; PostgreSQL refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    owner: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        names = {one.pw_name: one for one in pwd.getpwall()}
        entry = names.get("postgres") or names["nobody"]
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        owner |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    data = folder / "data"
    quiet: dict[str, Any] = owner | {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    initdb = [binaries / "initdb", "-D", data, "-U", "triage", "-A", "trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(initdb, check=True, **quiet)
    listening = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    control = [binaries / "pg_ctl", "-D", data, "-w", "-t", "300"]
    subprocess.run([*control, "-o", listening, "-l", folder / "log", "start"], check=True, **quiet)
    try:
        yield f"postgresql://triage@/postgres?host={folder}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet)
        shutil.rmtree(folder)


@pytest.fixture
def postgresql(cluster: str) -> Iterator[str]:
    """Address of a database without tables."""
    yield cluster
    engine = create_engine(cluster.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a queue's database, empty."""
    if request.param == "sqlite":
        yield str(tmp_path / "queue.sqlite")
        return
    address: str = request.getfixturevalue("postgresql")
    yield address


@pytest.fixture
def queue(database_address: str) -> Iterator[ReadingQueue]:
    migrate_at(database_address)
    made = ReadingQueue(open_database(database_address), keep_days=30)
    yield made
    made.close()


@pytest.fixture(scope="session")
def answers(tiny_bundle: Path) -> tuple[Any, ...]:
    """Of one case of two photographs, in German and in English."""
    scorer, history = Scorer.open(tiny_bundle), History(bleeding=True)
    pictures = [picture_bytes(kind) for kind in ("below", "referred")]
    judged = scorer.decide_case(pictures, history)
    return tuple(scorer.answer(judged, history, scorer.languages.catalogue(one)) for one in ("de", "en"))


def page_of(app: FastAPI) -> Page:
    page: Page = app.state.page
    return page


@pytest.fixture(scope="session")
def flagged_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the red flags that we ship, a deadline and a novelty gate."""
    flags = read_red_flags(ROOT / "configs" / "red_flags.yaml")
    made = tiny_bundle.make(
        tmp_path_factory.mktemp("bundles") / "flagged",
        red_flags=flags,
        deadline_hours=48.0,
        novelty_limit=tiny_bundle.NOVELTY_LIMIT,
    )
    return made.folder


AppFactory = Callable[..., FastAPI]


@contextmanager
def make_app_factory(folder: Path, default_bundle: Path) -> Iterator[AppFactory]:
    """Makes applications with the page; queue and audit log lie in ``folder``."""
    apps: list[tuple[FastAPI, AuditLog]] = []

    def make(bundle: Path = default_bundle, **settings: Any) -> FastAPI:
        scorer = Scorer(open_bundle(bundle))
        chosen = {"threads": 1, "reading_queue": str(folder / "queue.sqlite"), **settings}
        audit = AuditLog(folder / f"audit{len(apps) or ''}", 2**20)
        app = create_app(scorer.bundle, scorer, Settings(bundle=bundle, **chosen), audit)
        apps.append((app, audit))
        return app

    yield make
    for app, audit in apps:
        page_of(app).close()
        app.state.service.pool.close()
        audit.close()


@pytest.fixture
def open_page(flagged_bundle: Path, tmp_path: Path) -> Iterator[AppFactory]:
    """An application with the page for this test."""
    with make_app_factory(tmp_path, flagged_bundle) as opener:
        yield opener


@pytest.fixture(scope="session")
def app_factory() -> Callable[..., Any]:
    """``with app_factory(folder, bundle) as open_page``, for fixtures of a module."""
    return make_app_factory


@pytest.fixture
def browser(open_page: AppFactory) -> Browser:
    """Signed in at a server that asks nobody for a key."""
    signed_in = Browser(open_page())
    assert signed_in.sign_in().status_code == 303
    return signed_in


@pytest.fixture(scope="session")
def browse() -> type[Browser]:
    return Browser


@pytest.fixture
def written_by_another_version(tmp_path: Path) -> Callable[[str, str, str], None]:
    """``written_by_another_version(table, number, column)``: a later version wrote the case's document."""

    def alter(table: str, number: str, column: str) -> None:
        key = "id" if table == "cases" else "case_id"
        with sqlite3.connect(tmp_path / "queue.sqlite") as connection:
            changed = connection.execute(
                f"UPDATE {table} SET {column} = '{{\"a_later_key\": 3' "
                f"|| iif(length({column}) > 2, ', ' || substr({column}, 2), '}}') "
                f"WHERE {key} = (SELECT id FROM cases WHERE number = ?)",
                (number,),
            ).rowcount
        connection.close()
        assert changed

    return alter
