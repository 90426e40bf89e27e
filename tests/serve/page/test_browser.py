"""The way of a case through the page in a real browser, with the keyboard alone, and what it looks like."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

import httpx_60s
import tiny_bundle

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--window-size=1280,1000",
)
PATIENCE_S = 120
TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')
pytestmark = [
    pytest.mark.first,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="NO BROWSER: the page was not tried in one; "
        "`make browser` installs chromium and chromium-driver",
    ),
]


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for switch in (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--lang=en"):
        options.add_argument(switch)
    folder = tmp_path / "downloads"
    folder.mkdir()
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(folder), "intl.accept_languages": "en"}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    browser = webdriver.Chrome(options, service)
    browser.set_page_load_timeout(PATIENCE_S)
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def photographs(tmp_path: Path) -> dict[str, Path]:
    paths = {}
    for kind in ("referred", "below", "black"):
        paths[kind] = tmp_path / f"Erika_Mustermann_{kind}.jpg"
        paths[kind].write_bytes(tiny_bundle.picture_bytes(kind, "JPEG", (640, 480)))
    return paths


def screenshot(browser: webdriver.Chrome, name: str) -> None:
    """A picture of the whole page, where LESION_TRIAGE_SCREENSHOTS names a folder for people to look at."""
    if folder := os.environ.get("LESION_TRIAGE_SCREENSHOTS"):
        size = browser.get_window_size()
        height = browser.execute_script("return document.documentElement.scrollHeight")
        browser.set_window_size(size["width"], max(height + 140, 400))
        browser.save_screenshot(f"{folder}/{name}.png")
        browser.set_window_size(size["width"], size["height"])


def press(browser: webdriver.Chrome, key: str) -> None:
    """A key to whatever has the focus."""
    ActionChains(browser, duration=0).send_keys(key).perform()


def tab_to(browser: webdriver.Chrome, wanted: str, most: int = 60) -> WebElement:
    """Step on with the tabulator until something has the focus that is wanted and shows that it has."""
    for _ in range(most):
        press(browser, Keys.TAB)
        found, visible = browser.execute_script(
            "const e = document.activeElement;"
            "return [[e.id, e.innerText], getComputedStyle(e).outlineStyle !== 'none'];"
        )
        if wanted in found:
            assert visible, "the focus cannot be seen"
            return browser.switch_to.active_element
    pytest.fail(f"the keyboard does not reach {wanted}")


def wait_for_path(browser: webdriver.Chrome, path: str) -> None:
    def is_there(_: object) -> bool:
        ready = browser.execute_script("return document.readyState") == "complete"
        return ready and browser.current_url.split("?")[0].endswith(path)

    WebDriverWait(browser, PATIENCE_S).until(is_there)


def sign_in(browser: webdriver.Chrome, url: str, reader: str = "Dr A") -> None:
    browser.get(f"{url}/ui")
    wait_for_path(browser, "/ui/login")
    screenshot(browser, "login")
    tab_to(browser, "reader").send_keys(reader)
    press(browser, Keys.ENTER)
    wait_for_path(browser, "/ui")


def send_cases_by_http(url: str, photographs: list[Path]) -> None:
    """Cases of other people, one for each photograph."""
    with httpx_60s.Client(base_url=url) as other:
        token = TOKEN.search(other.get("/ui/login").text)
        assert token
        other.post("/ui/login", data={"form_token": token[1], "reader": "B"})
        for photograph in photographs:
            token = TOKEN.search(other.get("/ui/new").text)
            assert token
            files = {"image": (photograph.name, photograph.read_bytes())}
            assert other.post("/ui/cases", data={"form_token": token[1]}, files=files).status_code == 303


def send(browser: webdriver.Chrome, url: str, photographs: list[Path]) -> None:
    tab_to(browser, "New case")
    press(browser, Keys.ENTER)
    wait_for_path(browser, "/ui/new")
    # A file dialogue is the browser's own and cannot be driven; the way to its button is ours.
    tab_to(browser, "image").send_keys("\n".join(map(str, photographs)))
    assert "chosen" in browser.find_element(By.CSS_SELECTOR, "output").text
    named = [line.text for line in browser.find_elements(By.CSS_SELECTOR, ".chosen-names li")]
    assert named == [photograph.name for photograph in photographs]
    tab_to(browser, "age_years").send_keys("61")
    tab_to(browser, "bleeding").send_keys("y")
    screenshot(browser, "new")
    tab_to(browser, "Send the case")
    press(browser, Keys.ENTER)
    wait_for_path(browser, "/ui")


def drawing_all(folder: Path) -> dict[str, str]:
    """Settings of a queue in this folder that draws every case for follow-up."""
    queue = str(folder / "queue.sqlite")
    return {"TRIAGE_READING_QUEUE": queue, "TRIAGE_READING_QUEUE_FOLLOW_UP_SHARE": "1"}


def test_case_goes_its_way_by_the_keyboard_alone(
    chromium: webdriver.Chrome,
    start: Callable[..., Any],
    flagged_bundle: Path,
    photographs: dict[str, Path],
    tmp_path: Path,
) -> None:
    settings = drawing_all(tmp_path) | {"TRIAGE_LANGUAGE": "en"}
    with start(flagged_bundle, tmp_path, **settings) as server:
        sign_in(chromium, server.url)
        screenshot(chromium, "queue-empty")
        send_cases_by_http(server.url, [photographs["below"], photographs["black"]])
        send(chromium, server.url, [photographs["referred"], photographs["black"]])
        screenshot(chromium, "queue")
        entries = chromium.find_elements(By.CSS_SELECTOR, ".entry")
        assert [entry.find_element(By.CSS_SELECTOR, ".band b").text for entry in entries] == ["1", "1", "4"]
        assert "could not be scored" in entries[0].text

        number = entries[1].find_element(By.TAG_NAME, "h2").text
        override(chromium, number)
        record_outcome(chromium, number)
        tab_to(chromium, "Download the export")
        press(chromium, Keys.ENTER)
        found = downloaded(tmp_path / "downloads")
        assert f"photographs/{number}-1.jpg" in zipfile.ZipFile(found).namelist()
        check_narrow_dark_and_print(chromium, server.url, number)
        complaints = [
            line["message"]
            for line in chromium.get_log("browser")
            if not re.search("422|nothing-here", line["message"])
        ]
        assert complaints == [], "the browser refused something, perhaps by the content security policy"


def override(chromium: webdriver.Chrome, number: str) -> None:
    tab_to(chromium, number)
    press(chromium, Keys.ENTER)
    wait_for_path(chromium, f"/ui/cases/{number}")
    screenshot(chromium, "case")
    tab_to(chromium, "Copy the draft")
    press(chromium, Keys.ENTER)
    WebDriverWait(chromium, PATIENCE_S).until(
        lambda _: "copied" in chromium.find_element(By.CSS_SELECTOR, ".copied").text
    )
    tab_to(chromium, "decision-agree")
    press(chromium, Keys.ARROW_DOWN)
    tab_to(chromium, "reason")
    tab_to(chromium, "Record that I have read it")
    press(chromium, Keys.ENTER)
    wait_for_path(chromium, f"/ui/cases/{number}/reading")
    complaint = chromium.find_element(By.CSS_SELECTOR, ".complaint")
    assert chromium.switch_to.active_element == complaint
    screenshot(chromium, "case-complaint")
    tab_to(chromium, "reason").send_keys("seen last week <b>bold</b>")
    tab_to(chromium, "Record that I have read it")
    press(chromium, Keys.ENTER)
    wait_for_path(chromium, "/ui")
    assert number in chromium.find_element(By.CSS_SELECTOR, ".done").text
    assert len(chromium.find_elements(By.CSS_SELECTOR, ".entry")) == 2


def record_outcome(chromium: webdriver.Chrome, number: str) -> None:
    tab_to(chromium, "Read cases")
    press(chromium, Keys.ENTER)
    wait_for_path(chromium, "/ui/read")
    assert "Drawn at random for follow-up" in chromium.find_element(By.CSS_SELECTOR, "tbody").text
    screenshot(chromium, "read-drawn")
    tab_to(chromium, "Record outcome")
    press(chromium, Keys.ENTER)
    wait_for_path(chromium, f"/ui/cases/{number}#reading-title")
    assert "<b>bold</b>" in chromium.find_element(By.TAG_NAME, "blockquote").text
    assert "Drawn at random for follow-up" in chromium.find_element(By.CSS_SELECTOR, ".act .warn").text
    screenshot(chromium, "case-read")
    tab_to(chromium, "outcome-true")
    press(chromium, Keys.SPACE)
    tab_to(chromium, "confirmed_by").send_keys("H")
    tab_to(chromium, "Record the outcome")
    press(chromium, Keys.ENTER)
    wait_for_path(chromium, "/ui/read")
    assert "Drawn at random for follow-up" not in chromium.find_element(By.CSS_SELECTOR, "tbody").text
    screenshot(chromium, "read")


def test_case_that_is_sent_when_the_session_has_ended_is_said_not_to_be_kept(
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    with photographs["referred"].open("ab") as stream:
        stream.write(bytes(9_000_000))  # as one of a camera: more than a connection holds on its way
    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        chromium.get(f"{server.url}/ui/new")
        chromium.find_element(By.ID, "image").send_keys(str(photographs["referred"]))
        chromium.delete_all_cookies()
        chromium.find_element(By.CSS_SELECTOR, "form.new [type=submit]:enabled").click()
        wait_for_path(chromium, "/ui/login")
        assert "Nothing of it was kept" in chromium.find_element(By.CSS_SELECTOR, "[role=alert]").text
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        chromium.refresh()
        told = chromium.find_element(By.CSS_SELECTOR, "[role=alert]")
        assert told == chromium.switch_to.active_element
        screenshot(chromium, "login-lost")
        assert server.stop() == 0


def test_reason_that_is_sent_when_the_session_has_ended_is_not_lost(
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        send_cases_by_http(server.url, [photographs["below"]])
        chromium.get(f"{server.url}/ui")
        chromium.find_element(By.CSS_SELECTOR, ".entry h2 a").click()
        WebDriverWait(chromium, PATIENCE_S).until(
            lambda _: chromium.find_elements(By.ID, "decision-override")
        )
        chromium.find_element(By.ID, "decision-override").click()
        chromium.find_element(By.ID, "reason").send_keys("seen last week, and wider since")
        chromium.delete_all_cookies()
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        chromium.find_element(By.CSS_SELECTOR, "form[action$=reading] [type=submit]").click()
        WebDriverWait(chromium, PATIENCE_S).until(
            lambda _: chromium.find_elements(By.CSS_SELECTOR, "[readonly]")
        )
        kept = chromium.find_element(By.ID, "reason")
        assert kept.get_attribute("value") == "seen last week, and wider since"
        assert "was not recorded" in chromium.find_element(By.CSS_SELECTOR, "[role=alert]").text
        screenshot(chromium, "reading-lost")
        chromium.find_element(By.CSS_SELECTOR, "main .button").click()
        wait_for_path(chromium, "/ui/login")
        assert server.stop() == 0


def end_session(browser: webdriver.Chrome, url: str) -> None:
    """At the server, as when its time is over: the browser has noticed nothing."""
    cookies = {one["name"]: one["value"] for one in browser.get_cookies()}
    with httpx_60s.Client(base_url=url, cookies=cookies) as same:
        token = TOKEN.search(same.get("/ui/new").text)
        assert token
        assert same.post("/ui/logout", data={"form_token": token[1]}).status_code == 303


def sign_in_beside(browser: webdriver.Chrome, reader: str) -> None:
    """In a tab of its own, by the link of what was not sent; then back to the form."""
    form = browser.current_window_handle
    browser.find_element(By.CSS_SELECTOR, ".unsent a").click()
    WebDriverWait(browser, PATIENCE_S).until(lambda _: len(browser.window_handles) == 2)
    (beside,) = set(browser.window_handles) - {form}
    browser.switch_to.window(beside)
    wait_for_path(browser, "/ui/login")
    browser.find_element(By.ID, "reader").send_keys(reader, Keys.ENTER)
    wait_for_path(browser, "/ui")
    browser.close()
    browser.switch_to.window(form)


def press_send(browser: webdriver.Chrome, form: str) -> None:
    button = browser.find_element(By.CSS_SELECTOR, f"{form} [type=submit]:enabled:not([hidden])")
    browser.execute_script("arguments[0].focus()", button)
    press(browser, Keys.ENTER)


def told_unsent(browser: webdriver.Chrome, said: str) -> None:
    line = browser.find_element(By.CSS_SELECTOR, ".unsent")
    WebDriverWait(browser, PATIENCE_S).until(lambda _: said in line.text)
    assert "is still here" in line.text
    assert browser.switch_to.active_element == line
    assert line.get_attribute("role") == "alert"


def test_case_is_kept_in_its_form_until_its_reader_has_signed_in_again(
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    def kept() -> None:
        assert chromium.current_url.endswith("/ui/new")
        assert chromium.find_element(By.ID, "age_years").get_attribute("value") == "61"
        assert chromium.execute_script("return document.getElementById('image').files.length") == 2
        assert chromium.find_element(By.CSS_SELECTOR, ".sending").text == ""

    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        chromium.get(f"{server.url}/ui/new")
        files = [photographs[kind] for kind in ("referred", "below")]
        chromium.find_element(By.ID, "image").send_keys("\n".join(map(str, files)))
        chromium.find_element(By.ID, "age_years").send_keys("61")
        chromium.find_element(By.ID, "bleeding").send_keys("y")
        end_session(chromium, server.url)
        press_send(chromium, "form.new")
        told_unsent(chromium, "your session has ended")
        kept()
        screenshot(chromium, "new-session-ended")
        sign_in_beside(chromium, "Dr $& <b>")
        press_send(chromium, "form.new")
        told_unsent(chromium, "Dr $& <b> is signed in")
        kept()
        screenshot(chromium, "new-other-reader")
        sign_in_beside(chromium, "Dr A")
        press_send(chromium, "form.new")
        WebDriverWait(chromium, PATIENCE_S).until(lambda _: chromium.find_elements(By.CSS_SELECTOR, ".done"))
        (entry,) = chromium.find_elements(By.CSS_SELECTOR, ".entry h2 a")
        entry.click()
        WebDriverWait(chromium, PATIENCE_S).until(lambda _: chromium.find_elements(By.ID, "told"))
        assert len(chromium.find_elements(By.CSS_SELECTOR, ".photographs img")) == 2
        told = chromium.find_element(By.CSS_SELECTOR, "[aria-labelledby=told]").text
        assert "61" in told
        assert "bleed" in told
        assert [line["message"] for line in chromium.get_log("browser")] == []
        assert server.stop() == 0


def test_form_is_not_sent_to_a_server_that_does_not_answer(
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        chromium.get(f"{server.url}/ui/new")
        chromium.find_element(By.ID, "image").send_keys(str(photographs["below"]))
        assert server.stop() == 0
        press_send(chromium, "form.new")
        told_unsent(chromium, "the server does not answer")
        assert chromium.execute_script("return document.getElementById('image').files.length") == 1
        assert chromium.find_elements(By.CSS_SELECTOR, ".unsent a") == []
        for status in (401, 403):  # of a proxy that signs people in
            chromium.execute_script(f"window.fetch = async () => new Response('', {{status: {status}}})")
            press_send(chromium, "form.new")
            told_unsent(chromium, "your session has ended")


def test_case_is_kept_in_its_form_until_the_server_has_room_for_it(
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    room_for_one = {"TRIAGE_THREADS": "1", "TRIAGE_QUEUE": "0"}
    queue = str(tmp_path / "queue.sqlite")
    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=queue, **room_for_one) as server:
        sign_in(chromium, server.url)
        chromium.get(f"{server.url}/ui/new")
        chromium.find_element(By.ID, "image").send_keys(str(photographs["below"]))
        with socket.create_connection(server.address, timeout=60) as other:
            head = "POST /v1/triage HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            other.sendall(f"{head}Content-Length: 3000\r\n\r\n".encode() + bytes(1000))  # the rest is awaited
            time.sleep(0.5)
            press_send(chromium, "form.new")
            told_unsent(chromium, "can take nothing at the moment")
            assert chromium.execute_script("return document.getElementById('image').files.length") == 1
        time.sleep(0.5)
        press_send(chromium, "form.new")
        WebDriverWait(chromium, PATIENCE_S).until(lambda _: chromium.find_elements(By.CSS_SELECTOR, ".done"))
        assert server.stop() == 0


def test_reason_is_recorded_by_the_later_session_of_its_reader(
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        send_cases_by_http(server.url, [photographs["below"]])
        chromium.get(f"{server.url}/ui")
        number = chromium.find_element(By.CSS_SELECTOR, ".entry h2").text
        chromium.get(f"{server.url}/ui/cases/{number}")
        chromium.find_element(By.ID, "decision-override").click()
        chromium.find_element(By.ID, "reason").send_keys("seen last week")
        end_session(chromium, server.url)
        press_send(chromium, "form[action$=reading]")
        told_unsent(chromium, "your session has ended")
        screenshot(chromium, "reading-session-ended")
        sign_in_beside(chromium, "Dr A")
        press_send(chromium, "form[action$=reading]")
        WebDriverWait(chromium, PATIENCE_S).until(lambda _: chromium.find_elements(By.CSS_SELECTOR, ".done"))
        chromium.get(f"{server.url}/ui/cases/{number}")
        assert chromium.find_element(By.TAG_NAME, "blockquote").text == "seen last week"
        assert server.stop() == 0


def test_link_from_elsewhere_opens_a_case_and_signs_nobody_out(
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        send_cases_by_http(server.url, [photographs["below"]])
        chromium.get(f"{server.url}/ui")
        number = chromium.find_element(By.CSS_SELECTOR, ".entry h2").text
        record = tmp_path / "record.html"
        for target in (f"/ui/cases/{number}", "/ui/login"):
            record.write_text(f'<a href="{server.url}{target}">elsewhere</a>')
            chromium.get(record.as_uri())
            chromium.find_element(By.TAG_NAME, "a").click()
            WebDriverWait(chromium, PATIENCE_S).until(
                lambda _: chromium.find_elements(By.CSS_SELECTOR, ".leave")  # signed in
            )
            assert chromium.current_url == f"{server.url}{target}"
        assert server.stop() == 0


def test_upload_that_was_stopped_can_be_sent_again(
    start: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, chromium: webdriver.Chrome
) -> None:
    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        chromium.get(f"{server.url}/ui/new")
        # As one that was stopped: the page stays as it is, and is told nothing.
        chromium.execute_script(
            "const form = document.querySelector('form.new');"
            "form.noValidate = true; form.addEventListener('submit', event => event.preventDefault());"
            "form.requestSubmit();"
        )
        button = chromium.find_element(By.CSS_SELECTOR, "form.new [type=submit]:not([hidden])")
        assert not button.is_enabled()
        WebDriverWait(chromium, 15).until(lambda _: button.is_enabled())
        assert server.stop() == 0


@pytest.mark.parametrize("script", [True, False])
def test_enter_in_a_field_does_not_send_a_case_before_its_time(
    script: bool,
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    """Nothing can be added to a case once it is sent."""
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        chromium.get(f"{server.url}/ui/new")
        chromium.find_element(By.ID, "image").send_keys(str(photographs["below"]))
        for field in ("age_years", "diameter_mm", "earlier_case"):
            chromium.find_element(By.ID, field).send_keys(Keys.ENTER)
        chromium.find_element(By.ID, "age_years").send_keys("61")
        time.sleep(1.0)  # what was sent would be on its way
        assert chromium.find_element(By.ID, "age_years").get_attribute("value") == "61"
        chromium.find_element(By.CSS_SELECTOR, "form.new [type=submit]:enabled").click()
        WebDriverWait(chromium, PATIENCE_S).until(lambda _: chromium.find_elements(By.CSS_SELECTOR, ".done"))
        assert len(chromium.find_elements(By.CSS_SELECTOR, ".entry")) == 1
        assert server.stop() == 0


def test_draft_that_could_not_be_copied_is_not_called_copied(
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    """Or the draft of another case, still in the clipboard, would be pasted into this patient's record."""
    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        send_cases_by_http(server.url, [photographs["below"]])
        chromium.get(f"{server.url}/ui")
        chromium.find_element(By.CSS_SELECTOR, ".entry h2 a").click()
        WebDriverWait(chromium, PATIENCE_S).until(lambda _: chromium.find_elements(By.ID, "note"))
        chromium.execute_script(  # as on a machine whose administrator forbids both ways
            "navigator.clipboard.writeText = () => Promise.reject(new Error());"
            "document.execCommand = () => false;"
        )
        chromium.find_element(By.CSS_SELECTOR, "[data-copy]").click()
        told = chromium.find_element(By.CSS_SELECTOR, ".copied")
        WebDriverWait(chromium, PATIENCE_S).until(lambda _: told.text)
        assert "was copied" not in told.text
        assert "could not be copied" in told.text
        note = chromium.find_element(By.ID, "note")
        assert chromium.switch_to.active_element == note
        assert chromium.execute_script("return arguments[0].selectionEnd", note) > 100
        assert server.stop() == 0


def test_old_queue_says_that_it_is_old(
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    def told_when_gone_back_to() -> str:
        chromium.execute_script(  # as by a browser that has kept the page
            "window.dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))"
        )
        return WebDriverWait(chromium, 10).until(  # sooner than it would ask again anyway
            lambda _: chromium.find_element(By.CSS_SELECTOR, ".changed").text
        )

    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        send_cases_by_http(server.url, [photographs["below"]])
        chromium.get(f"{server.url}/ui")
        send_cases_by_http(server.url, [photographs["referred"]])
        assert "The queue has changed" in told_when_gone_back_to()
        chromium.get(f"{server.url}/ui")
        chromium.delete_all_cookies()
        assert "may be out of date" in told_when_gone_back_to()
        chromium.find_element(By.CSS_SELECTOR, ".changed a").click()
        wait_for_path(chromium, "/ui/login")
        assert server.stop() == 0


def test_photographs_dropped_beside_their_place_do_not_take_the_form_away(
    start: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, chromium: webdriver.Chrome
) -> None:
    with start(tiny_bundle, tmp_path, TRIAGE_READING_QUEUE=str(tmp_path / "queue.sqlite")) as server:
        sign_in(chromium, server.url)
        chromium.get(f"{server.url}/ui/new")
        opened_by_the_browser = chromium.execute_script(
            "const dataTransfer = new DataTransfer();"
            "dataTransfer.items.add(new File(['x'], 'a.jpg', {type: 'image/jpeg'}));"
            "const drop = { dataTransfer, bubbles: true, cancelable: true };"
            "return ['dragover', 'drop'].map(name => document.querySelector('h1').dispatchEvent("
            "  new DragEvent(name, drop)));"
        )
        assert opened_by_the_browser == [False, False]
        named = [line.text for line in chromium.find_elements(By.CSS_SELECTOR, ".chosen-names li")]
        assert named == ["a.jpg"]
        assert server.stop() == 0


def test_reader_with_a_long_name_makes_no_page_wider_than_a_phone(
    start: Callable[..., Any],
    tiny_bundle: Path,
    tmp_path: Path,
    chromium: webdriver.Chrome,
    photographs: dict[str, Path],
) -> None:
    with start(tiny_bundle, tmp_path, **drawing_all(tmp_path)) as server:
        sign_in(chromium, server.url, "annemarie.vonundzumustermann@universitaetsklinikum.example.org"[:60])
        send_cases_by_http(server.url, [photographs["below"]])
        chromium.get(f"{server.url}/ui")
        number = chromium.find_element(By.CSS_SELECTOR, ".entry h2").text
        chromium.get(f"{server.url}/ui/cases/{number}")
        chromium.find_element(By.ID, "decision-agree").click()
        chromium.find_element(By.CSS_SELECTOR, "form[action$=reading] [type=submit]").click()
        wait_for_path(chromium, "/ui")
        check_narrow_dark_and_print(chromium, server.url, number)
        assert server.stop() == 0


def check_narrow_dark_and_print(chromium: webdriver.Chrome, url: str, number: str) -> None:
    """Narrow, nothing is wider than the screen; dark and printed it is for people to look at."""
    paths = ("", "/new", "/read", "/certificate", f"/cases/{number}", "/nothing-here")
    chromium.execute_cdp_cmd("Network.enable", {})
    for width, scheme, language in ((320, "light", "en"), (320, "light", "de"), (1280, "dark", "en")):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        headers = {"headers": {"Accept-Language": language}}
        chromium.execute_cdp_cmd("Network.setExtraHTTPHeaders", headers)
        for path in paths:
            chromium.get(f"{url}/ui{path}")
            wide = chromium.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, f"{path or 'queue'} is {wide} px wide on a screen of {width}"
            leave = chromium.find_element(By.CSS_SELECTOR, ".leave button")
            assert leave.size["height"] < 60, "the word on the button is broken into lines"
            name = path.strip("/").split("/")[0] or "queue"
            full_page_screenshot(chromium, width, f"{width}-{scheme}-{language}-{name}")
    chromium.get(f"{url}/ui/cases/{number}")
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    full_page_screenshot(chromium, 800, "print-case")
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def full_page_screenshot(chromium: webdriver.Chrome, width: int, name: str) -> None:
    if folder := os.environ.get("LESION_TRIAGE_SCREENSHOTS"):
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        height = chromium.execute_script("return document.documentElement.scrollHeight")
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics | {"height": height})
        chromium.save_screenshot(f"{folder}/{name}.png")


def downloaded(folder: Path) -> Path:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := [path for path in folder.glob("*.zip") if path.stat().st_size]:
            return found[0]
        time.sleep(0.05)
    pytest.fail("the export was not downloaded")
