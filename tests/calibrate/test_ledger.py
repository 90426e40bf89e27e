"""A second look at the same calibration cases is written down, and does not happen unasked."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from lesion_triage.calibrate import ledger
from lesion_triage.errors import CalibrationError

ONE, TWO = "1" * 64, "2" * 64


def look(cases=ONE, model=ONE, settings=ONE, **more):
    fields = {
        "looked_at": "2025-01-01T00:00:00Z",
        "purpose": "first look",
        "site": "",
        "positives": 59,
        "target_sensitivity": 0.95,
        "confidence": 0.95,
        "threshold": 0.1,
    }
    return ledger.Entry(
        cases_sha256=cases, model_sha256=model, settings_sha256=settings, **{**fields, **more}
    )


def test_looks_come_back_in_order(tmp_path):
    path = tmp_path / "folder" / ledger.LEDGER_FILE_NAME
    assert ledger.read(path) == ()
    looks = (look(), look(model=TWO, purpose="why not\nagain"))
    for each in looks:
        ledger.append(path, each)
    assert ledger.read(path) == looks


def test_damaged_ledger_is_refused(tmp_path):
    path = tmp_path / ledger.LEDGER_FILE_NAME
    ledger.append(path, look())
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(CalibrationError, match="line 2 is damaged; restore the ledger"):
        ledger.read(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{}\n", None])
def test_what_is_no_ledger_is_one_sentence(tmp_path, content):
    path = tmp_path / ledger.LEDGER_FILE_NAME
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(CalibrationError, match="which calibration cases were used"):
        ledger.read(path)


def test_a_look_is_not_glued_to_a_last_line_without_its_newline(tmp_path):
    path = tmp_path / ledger.LEDGER_FILE_NAME
    ledger.append(path, look())
    path.write_text(path.read_text().rstrip("\n"))
    ledger.append(path, look(model=TWO))
    ledger.append(path, look(cases=TWO))
    assert ledger.read(path) == (look(), look(model=TWO), look(cases=TWO))


def test_a_look_that_the_disk_has_no_room_for_leaves_the_ledger_as_it_was(tmp_path, full_disk):
    path = tmp_path / ledger.LEDGER_FILE_NAME
    ledger.append(path, look())
    with (
        full_disk(path.stat().st_size + 20),
        pytest.raises(CalibrationError, match="no certificate was issued"),
    ):
        ledger.append(path, look(model=TWO))
    assert ledger.read(path) == (look(),)
    ledger.append(path, look(cases=TWO))
    assert ledger.read(path) == (look(), look(cases=TWO))


def test_two_processes_that_each_want_the_first_look_do_not_both_get_it(tmp_path):
    path = tmp_path / ledger.LEDGER_FILE_NAME
    program = (
        "import sys, time; from pathlib import Path; from lesion_triage.calibrate import ledger\n"
        "with ledger.locked(Path(sys.argv[1])) as looks:\n"
        "    time.sleep(0.2)\n"
        "    if not looks: ledger.append(Path(sys.argv[1]), ledger.Entry.model_validate_json(sys.argv[2]))\n"
    )
    line = json.dumps(look().model_dump(mode="json"))
    both = [subprocess.Popen([sys.executable, "-c", program, str(path), line]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert ledger.read(path) == (look(),)


UNPRIVILEGED_PROCESS = """
import os, sys
from pathlib import Path
from lesion_triage.calibrate import ledger
from lesion_triage.errors import CalibrationError
if not os.geteuid():  # who may do anything is refused nothing
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
path = Path(ledger.LEDGER_FILE_NAME)
try:
    ledger.require_writable(path)
    print("scoring")
    with ledger.locked(path):
        ledger.append(path, ledger.Entry.model_validate_json(sys.argv[1]))
except CalibrationError as error:
    print(error)
"""


def append_unprivileged(folder) -> list[str]:
    """What is said where somebody without rights of their own writes down a look in a folder."""
    line = json.dumps(look(model=TWO).model_dump(mode="json"))
    words = [sys.executable, "-c", UNPRIVILEGED_PROCESS, line]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture
def shared(tmp_path):
    """A folder with a ledger that everybody may write to."""
    folder = tmp_path / "shared"
    ledger.append(folder / ledger.LEDGER_FILE_NAME, look())
    (folder / ledger.LEDGER_FILE_NAME).chmod(0o666)
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o777)


@pytest.mark.parametrize("hindered", ["a folder that takes no other file", "a lock that a colleague made"])
def test_a_ledger_that_can_be_written_is_added_to(shared, hindered):
    if hindered.startswith("a folder"):
        shared.chmod(0o555)
    else:
        lock = shared / f".{ledger.LEDGER_FILE_NAME}.lock"
        lock.touch()
        lock.chmod(0o444)
    assert append_unprivileged(shared) == ["scoring"]
    assert ledger.read(shared / ledger.LEDGER_FILE_NAME) == (look(), look(model=TWO))


def test_a_lock_that_cannot_be_had_is_named_before_anything_is_scored(shared):
    lock = shared / f".{ledger.LEDGER_FILE_NAME}.lock"
    lock.touch()
    lock.chmod(0)
    (said,) = append_unprivileged(shared)
    assert said.startswith(f"{lock.name}: cannot be written (Permission denied)")


def test_what_a_later_version_writes_down_beside_is_passed_over(tmp_path):
    path = tmp_path / ledger.LEDGER_FILE_NAME
    path.write_text(json.dumps({**look().model_dump(mode="json"), "of_a_later_version": 1}) + "\n")
    assert ledger.read(path) == (look(),)


def test_a_line_of_before_files_were_hashed_is_still_read_and_found(tmp_path):
    path = tmp_path / ledger.LEDGER_FILE_NAME
    old = look().as_look()
    path.write_text(json.dumps(old.model_dump(mode="json")) + "\n")
    assert ledger.read(path) == (look(),)
    assert ledger.looks_at_pictures(ledger.read(path), ONE, TWO, ["a" * 16]) == (old,)
    assert ledger.looks_at_pictures(ledger.read(path), TWO, ONE, ["a" * 16]) == ()


def test_the_same_files_are_the_same_cases_whatever_the_size_of_their_pixels():
    looks = (look(cases=TWO, files_sha256=ONE), look(cases=TWO, files_sha256=TWO))
    assert ledger.looks_at_pictures(looks, ONE, ONE, []) == (looks[0].as_look(),)


@pytest.mark.parametrize(("kept", "found"), [(3, True), (1, True), (0, False)])
def test_a_look_at_some_of_the_same_pictures_is_a_further_one(tmp_path, kept, found):
    path = tmp_path / ledger.LEDGER_FILE_NAME
    first = [f"{number:016x}" for number in range(3)]
    second = [*first[:kept], *(f"{number:016x}" for number in range(10, 13 - kept))]
    ledger.append(path, look(cases=ONE, files_sha256=ONE, pictures=first))
    looks = ledger.read(path)
    assert ledger.looks_at_pictures(looks, TWO, TWO, second) == (looks[0].as_look(),) * found


def test_a_picture_s_name_is_no_fingerprint(tmp_path):
    with pytest.raises(ValidationError):
        look(pictures=["jane-doe.png"])


def test_first_look_needs_no_name():
    ledger.require_second_look_reason((), "")


def test_second_look_must_be_asked_for_by_name():
    looks = (look(), look(cases=TWO), look(model=TWO))
    earlier = ledger.looks_at_pictures(looks, ONE, ONE, [])
    assert earlier == (looks[0].as_look(), looks[2].as_look())
    with pytest.raises(
        CalibrationError,
        match=r"chosen on .* cases, or on some of them, 2 times before.*calibrate\.second_look",
    ):
        ledger.require_second_look_reason(earlier, "")
    ledger.require_second_look_reason(earlier, "another seed")


def test_the_same_look_again_is_no_second_one():
    looks = (look(), look(model=TWO))
    assert ledger.find_repeated_look(looks, ONE, TWO, ONE) is looks[1]
    assert ledger.find_repeated_look(looks, ONE, TWO, TWO) is None
