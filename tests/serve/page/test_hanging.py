"""A database that hangs takes the page with it, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

import tiny_bundle
from triage_server.page.database import migrate_at

REFERRED = tiny_bundle.picture_bytes("referred", "JPEG")


@contextmanager
def frozen_database(address: str) -> Iterator[None]:
    """The database's processes, stopped: sockets are open, and nobody answers."""
    (folder,) = parse_qs(urlsplit(address).query)["host"]
    first = int((Path(folder) / "data" / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    processes = [first, *map(int, children)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


async def request_all(app: Any, browser: Any) -> tuple[list[int], httpx.Response, float]:
    """Statuses of the page, the answer to a platform that comes after them, and how long all of it took."""
    transport, began = httpx.ASGITransport(app=app), time.monotonic()
    async with httpx.AsyncClient(
        transport=transport, base_url=browser.url, cookies=browser.cookies
    ) as client:
        token, files = {"form_token": browser.token()}, [("image", ("a.jpg", REFERRED))]
        requests = [client.get("/ui") for _ in range(6)]
        requests += [client.post("/ui/cases", data=token, files=files) for _ in range(20)]
        requests += [client.post("/ui/export", data=token), client.get("/ui/pulse")]
        page = asyncio.gather(*requests)
        await asyncio.sleep(0.3)
        headers = {"Content-Type": "image/jpeg"}
        scored = [await client.post("/v1/triage", content=REFERRED, headers=headers) for _ in range(5)]
        assert not page.done()
        return [response.status_code for response in await page], scored[-1], time.monotonic() - began


def test_platforms_are_answered_while_the_database_of_the_page_hangs(
    postgresql: str, open_page: Callable[..., Any], browse: Any
) -> None:
    migrate_at(postgresql)
    app = open_page(reading_queue=postgresql, queue=2)
    page, pool = app.state.page, app.state.service.pool
    page._database_threads._timeout_s = 3.0
    browser = browse(app)
    browser.sign_in()
    number = browser.send_case(REFERRED)
    with frozen_database(postgresql):
        statuses, scored, elapsed_s = asyncio.run(request_all(app, browser))
        assert statuses == [503] * len(statuses)
        assert (scored.status_code, scored.json()["disposition"]) == (200, "needs_in_person")
        assert elapsed_s < 8
        assert pool.cases == pool.pending_bytes == 0
    deadline = time.monotonic() + 60
    while (again := browser.get("/ui")).status_code != 200:
        assert time.monotonic() < deadline
    assert number in again.text
    assert page.queue.waiting_cases()[0].count == 1
