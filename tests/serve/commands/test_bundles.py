"""The link is turned only to what has passed every check, and back with one word."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny_bundle as tiny
from triage_server.cli import main


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two bundles and no link yet; its environment is the server's."""
    tiny.make(tmp_path / "a")
    tiny.make(tmp_path / "b", threshold=0.4)
    monkeypatch.setenv("TRIAGE_BUNDLE", str(tmp_path / "served"))
    monkeypatch.setenv("TRIAGE_ALLOW_UNSIGNED", "1")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What the command said last, on either stream."""
    said = capsys.readouterr()
    return said.out + said.err


def test_activate_makes_the_link_and_rollback_goes_back_and_forth(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = house / "served"
    assert main(["bundles", "activate", str(house / "a")]) == 0
    assert link.readlink() == Path("a")  # relative: the folder may be mounted elsewhere
    assert main(["bundles", "rollback"]) == 2
    assert "no previous bundle" in told(capsys)
    assert main(["bundles", "activate", str(house / "b")]) == 0
    for expected in ("a", "b", "a"):
        assert main(["bundles", "rollback"]) == 0
        assert link.resolve() == house / expected
    capsys.readouterr()
    assert main(["bundles", "show"]) == 0
    assert told(capsys).split() == ["served", str(house / "a"), "before", str(house / "b")]
    assert sorted(path.name for path in house.iterdir()) == ["a", "b", "served", "served.former"]


def test_altered_bundle_leaves_the_link_alone_also_on_the_way_back(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundles", "activate", str(house / "a")]) == 0
    card = house / "b" / "MODEL_CARD.md"
    whole = card.read_bytes()
    card.write_bytes(whole + b" ")
    assert main(["bundles", "activate", str(house / "b")]) == 2
    assert "MODEL_CARD.md" in told(capsys)
    assert (house / "served").resolve() == house / "a"
    card.write_bytes(whole)
    assert main(["bundles", "activate", str(house / "b")]) == 0
    (house / "a" / "policy.json").unlink()
    assert main(["bundles", "rollback"]) == 2
    assert (house / "served").resolve() == house / "b"


def test_unsigned_bundle_is_not_activated_where_signatures_are_asked_for(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (house / "trusted").mkdir()
    assert main(["bundles", "activate", str(house / "a"), "--trusted", str(house / "trusted")]) == 2
    assert "SignatureError" in told(capsys)
    assert not (house / "served").exists()


def test_bundle_whose_activation_is_broken_off_leaves_the_link_and_nothing_beside_it(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundles", "activate", str(house / "a")]) == 0

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    told(capsys)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", interrupted)
        assert main(["bundles", "activate", str(house / "b")]) == 130
    assert told(capsys) == ""
    assert (house / "served").resolve() == house / "a"
    assert sorted(path.name for path in house.iterdir()) == ["a", "b", "served"]


KILLED = """
import os, signal, sys
from triage_server.cli import main
left = int(sys.argv.pop(1))
def count(event, _):
    global left
    if event == "os.rename":
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
sys.exit(main())
"""
"""A command that is killed before it renames once more than it may."""


@pytest.mark.parametrize("renames", range(4))
@pytest.mark.parametrize("words", [["activate", "c"], ["rollback"]], ids=["activate", "rollback"])
def test_command_killed_between_its_links_leaves_a_way_back(
    words: list[str], renames: int, house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = house / "served"
    tiny.make(house / "c", threshold=0.3)
    for name in ("a", "b"):
        assert main(["bundles", "activate", str(house / name)]) == 0
    line = [sys.executable, "-c", KILLED, str(renames), "bundles", *words]
    done = subprocess.run(line, cwd=house, capture_output=True, check=False)
    assert done.returncode in (-signal.SIGKILL, 0), done.stderr
    served, turned = link.resolve(), house / {"activate": "c", "rollback": "a"}[words[0]]
    assert served in ((house / "b", turned) if done.returncode else (turned,))
    before = house / "b" if served == turned else house / "a"
    told(capsys)
    assert main(["bundles", "show"]) == 0
    assert told(capsys).split() == ["served", str(served), "before", str(before)]
    for expected in (before, served, before):
        assert main(["bundles", "rollback"]) == 0
        assert link.resolve() == expected


def test_rollback_without_a_link_is_one_sentence_and_finds_the_bundle_before(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundles", "rollback"]) == 2
    assert "no previous bundle" in told(capsys)
    for name in ("a", "b"):
        assert main(["bundles", "activate", str(house / name)]) == 0
    (house / "served").unlink()
    assert main(["bundles", "rollback"]) == 0
    assert (house / "served").resolve() == house / "a"


def test_folder_in_place_of_the_link_is_refused(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["activate", str(house / "b")], ["rollback"], ["show"]):
        assert main(["bundles", *verb, "--link", str(house / "a")]) == 2
        assert "expected a symbolic link" in told(capsys)


def test_bundle_that_is_served_already_is_not_its_own_predecessor(house: Path) -> None:
    assert main(["bundles", "activate", str(house / "a")]) == 0
    assert main(["bundles", "activate", str(house / "b")]) == 0
    assert main(["bundles", "activate", str(house / "b")]) == 2
    assert main(["bundles", "rollback"]) == 0
    assert (house / "served").resolve() == house / "a"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nothing here shows who waits for a lock")
@pytest.mark.parametrize(
    ("commands", "served", "before"),
    [
        ([["rollback"], ["rollback"]], {"a"}, "b"),
        ([["activate", "c"], ["activate", "d"]], {"c", "d"}, "b"),
        ([["activate", "c"], ["rollback"]], {"c", "a"}, "b"),
    ],
)
def test_of_two_commands_at_one_moment_one_is_done_and_the_other_says_so(
    commands: list[list[str]], served: set[str], before: str, house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, threshold in (("c", 0.3), ("d", 0.2)):
        tiny.make(house / name, threshold=threshold)
    for name in ("a", "b"):
        assert main(["bundles", "activate", str(house / name)]) == 0
    lock = house / ".served.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        line = [sys.executable, "-m", "triage_server", "bundles"]
        running = [
            subprocess.Popen([*line, *words], cwd=house, stderr=subprocess.PIPE, text=True)
            for words in commands
        ]
        for process in running:  # each has verified its bundle, and waits for the lock
            deadline, descriptors = time.monotonic() + 60, Path(f"/proc/{process.pid}/fd")
            while lock not in [one.resolve() for one in descriptors.iterdir()]:
                assert process.poll() is None, process.stderr
                assert time.monotonic() < deadline
                time.sleep(0.05)
    said = {process.communicate(timeout=60)[1]: process.returncode for process in running}
    assert sorted(said.values()) == [0, 2]
    (refusal,) = (text for text, status in said.items() if status == 2)
    assert "another command" in refusal
    assert "changed nothing" in refusal
    link = house / "served"
    assert link.resolve().name in served
    told(capsys)
    assert main(["bundles", "show"]) == 0
    assert told(capsys).split() == ["served", str(link.resolve()), "before", str(house / before)]
    assert not lock.exists()
