"""A form that is sent twice is done once, whoever of those who sent it is still there."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import tiny_bundle
from triage_server.page.forms import Form
from triage_server.page.single_submit import FORM_ID_FIELD, SingleSubmit
from triage_server.problems import RequestError

FORM = Form({FORM_ID_FIELD: "a" * 22})
REFERRED = tiny_bundle.picture_bytes("referred", "JPEG")


class Work:
    """What a form asks for: goes on until it is let."""

    def __init__(self) -> None:
        self.begun = self.done = self.cancelled = 0
        self.may_end = asyncio.Event()
        self.fails = False

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails:
            raise RequestError("queue_unavailable")
        self.done += 1
        return "2222-2222"


async def submit_times(once: SingleSubmit, work: Work, number: int) -> list[asyncio.Task[str]]:
    """So many that have come as far as they come."""
    made = [
        asyncio.create_task(once.run("session", "/ui/cases", FORM, work, lambda: None)) for _ in range(number)
    ]
    await asyncio.sleep(0.2)
    return made


async def cancel(click: asyncio.Task[str]) -> None:
    click.cancel()
    with suppress(asyncio.CancelledError):
        await click
    assert click.cancelled()


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_work_goes_on_for_those_who_wait_when_another_goes(gone: int) -> None:
    async def story() -> None:
        once, work = SingleSubmit(), Work()
        waiting = await submit_times(once, work, 3)
        await cancel(waiting.pop(gone))
        work.may_end.set()
        assert await asyncio.gather(*waiting) == ["2222-2222"] * 2
        assert await (await submit_times(once, work, 1))[0] == "2222-2222"
        assert (work.begun, work.done) == (1, 1)

    asyncio.run(story())


def test_work_that_nobody_waits_for_is_given_up_and_may_be_sent_again() -> None:
    async def story() -> None:
        once, work = SingleSubmit(), Work()
        for click in await submit_times(once, work, 2):
            await cancel(click)
        assert (work.begun, work.cancelled) == (1, 1)
        (again,) = await submit_times(once, work, 1)
        work.may_end.set()
        assert await again == "2222-2222"
        assert (work.begun, work.done) == (2, 1)

    asyncio.run(story())


def test_what_failed_fails_all_who_wait_and_may_be_sent_again() -> None:
    async def story() -> None:
        once, work = SingleSubmit(), Work()
        waiting = await submit_times(once, work, 3)
        await cancel(waiting.pop(0))
        work.fails = True
        work.may_end.set()
        for click in waiting:
            with pytest.raises(RequestError):
                await click
        work.fails = False
        assert await (await submit_times(once, work, 1))[0] == "2222-2222"
        assert (work.begun, work.done) == (2, 1)

    asyncio.run(story())


def test_what_was_done_as_its_last_waiter_went_is_not_done_again() -> None:
    async def story() -> None:
        once, work = SingleSubmit(), Work()
        (click,) = await submit_times(once, work, 1)
        work.may_end.set()
        while not work.done:
            await asyncio.sleep(0)
        await cancel(click)
        assert await (await submit_times(once, work, 1))[0] == "2222-2222"
        assert work.begun == 1

    asyncio.run(story())


def test_content_sent_again_after_another_is_done_again(browser: Any) -> None:
    number, fields = browser.send_case(REFERRED), {"form_id": "a" * 22, "confirmed_by": "histopathology"}
    browser.read_case(number)
    # A browser shows the page as it was, with its form id, to somebody who goes back to correct an entry.
    sent = [("true", "0"), ("true", "0"), ("false", "0"), ("false", "1"), ("true", "0"), ("true", "2")]
    said = [
        browser.post(
            f"/ui/cases/{number}/outcome", {**fields, "needs_in_person": needs, "outcomes": seen}
        ).status_code
        for needs, seen in sent
    ]
    assert said == [303, 303, 409, 303, 409, 303]  # never "Recorded" of what was not
    outcomes = browser.app.state.page.queue.find(number).outcomes
    assert [one.needs_in_person for one in outcomes] == [True, False, True]


def test_form_that_is_sent_again_after_its_reader_has_signed_in_again_makes_no_second_case(
    browser: Any,
) -> None:
    fields = {"form_id": "a" * 22, "age_years": "61"}
    number, first_token = browser.send_case(REFERRED, **fields), browser.token()
    browser.sign_in()
    assert browser.token() != first_token
    assert browser.send_case(REFERRED, **fields) == number
    browser.sign_in("B")  # another person's is another case
    assert browser.send_case(REFERRED, **fields) != number
    assert browser.app.state.page.queue.waiting_cases()[0].count == 2


def test_photographs_of_a_click_that_went_are_counted_until_they_are_kept(
    browser: Any, tmp_path: Path
) -> None:
    fields, pool = {"form_token": browser.token(), "form_id": "b" * 22}, browser.app.state.service.pool
    held = sqlite3.connect(tmp_path / "queue.sqlite", isolation_level=None)
    held.execute("BEGIN IMMEDIATE")  # what is added waits

    async def story() -> httpx.Response:
        async with browser.async_client() as client:
            sent = []
            for _ in range(2):
                files = [("image", ("a.jpg", REFERRED + bytes(1_000_000)))]
                sent.append(asyncio.create_task(client.post("/ui/cases", data=fields, files=files)))
                await asyncio.sleep(1.0)
            sent[0].cancel()
            await asyncio.sleep(0.1)
            assert 1_000_000 < pool.pending_bytes < 1_100_000
            held.execute("ROLLBACK")
            return await sent[1]

    response = asyncio.run(story())
    held.close()
    assert response.status_code == 303
    assert browser.app.state.page.queue.waiting_cases()[0].count == 1
    assert (pool.cases, pool.pending_bytes) == (0, 0)
