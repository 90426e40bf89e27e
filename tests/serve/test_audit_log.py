"""The audit log: whatever was acknowledged is in it, and whatever was changed in it is found."""

from __future__ import annotations

import asyncio
import errno
import hmac
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lesion_triage.errors import AuditLogError
from triage_server import audit_log
from triage_server.audit_chain import GENESIS, ChainEnd, encode_line, file_name, files_of, read_tail, verify
from triage_server.audit_folder import KEY_FILE
from triage_server.audit_log import AuditLog


def write(folder: Path, count: int, rotate_bytes: int = 2**20, **fields: Any) -> list[str]:
    """Append lines one by one; gives their hashes."""

    async def one_by_one() -> list[str]:
        return [(await log.append({"event": "answer", "number": n, **fields})).head for n in range(count)]

    with AuditLog(folder, rotate_bytes) as log:
        return asyncio.run(one_by_one())


def raw(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in files_of(folder))


def events(folder: Path) -> list[str]:
    return [json.loads(line)["event"] for line in raw(folder).splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def test_name_of_each_folder_that_is_made_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else a power cut could take the folder away with every line that was acknowledged."""
    flushed: list[Path] = []
    to_disk = os.fsync

    def noting(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink())
        to_disk(handle)

    monkeypatch.setattr(os, "fsync", noting)
    folder = tmp_path / "new" / "audit"
    write(folder, 1)
    assert {tmp_path, tmp_path / "new", folder} <= set(flushed)
    flushed.clear()
    write(folder, 1)  # there is no new name, and a folder above need not be one that may be read
    assert not {tmp_path, tmp_path / "new"} & set(flushed)


def test_chain_can_be_checked_with_nothing_of_ours(folder: Path):
    hashes = write(folder, 5)
    previous = GENESIS
    for number, line in enumerate(raw(folder).decode().splitlines(), start=1):
        fields = json.loads(line)
        before, _, _ = line.rpartition(',"hash":"')
        assert sha256((before + "}").encode()).hexdigest() == fields["hash"] == hashes[number - 1]
        assert (fields["sequence"], fields["previous"]) == (number, previous)
        previous = fields["hash"]


def test_log_goes_on_where_it_ended(folder: Path):
    write(folder, 3)
    last = write(folder, 2)[-1]
    walked = verify(folder)
    assert (walked.end.sequence, walked.end.head, walked.torn) == (5, last, 0)


def test_every_flipped_byte_is_found(folder: Path):
    write(folder, 10)
    file = files_of(folder)[0]
    whole = file.read_bytes()
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << (place % 8)
        file.write_bytes(spoilt)
        with pytest.raises(AuditLogError, match=r"line \d+"):
            verify(folder)
    file.write_bytes(whole)
    verify(folder)


def test_first_bad_line_is_named(folder: Path):
    write(folder, 10)
    file = files_of(folder)[0]
    lines = file.read_bytes().splitlines(keepends=True)
    lines[6] = lines[6].replace(b'"number":6', b'"number":5')
    lines[8] = b"\n"
    file.write_bytes(b"".join(lines))
    with pytest.raises(AuditLogError, match=r"line 7 does not fit"):
        verify(folder)


@pytest.mark.parametrize(("what", "bad"), [("removed", 4), ("swapped", 3), ("twice", 4), ("forged", 5)])
def test_line_removed_swapped_repeated_or_forged_is_found(what: str, bad: int, folder: Path):
    write(folder, 6)
    file = files_of(folder)[0]
    lines = file.read_bytes().splitlines(keepends=True)
    if what == "removed":
        del lines[3]
    elif what == "swapped":
        lines[2], lines[3] = lines[3], lines[2]
    elif what == "twice":
        lines.insert(3, lines[2])
    else:  # a line that fits its own hash, but not the one after it
        text = lines[3].partition(b',"hash"')[0].replace(b'"number":3', b'"number":4')
        lines[3] = text + b',"hash":"' + sha256(text + b"}").hexdigest().encode() + b'"}\n'
    file.write_bytes(b"".join(lines))
    with pytest.raises(AuditLogError, match=rf"line {bad} is number"):
        verify(folder)


def test_end_that_was_cut_off_is_found_by_a_hash_noted_elsewhere(folder: Path):
    hashes = write(folder, 6)
    file = files_of(folder)[0]
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:4]))
    verify(folder)
    verify(folder, head=hashes[3])
    with pytest.raises(AuditLogError, match="ends with line 4: later lines were removed"):
        verify(folder, head=hashes[5])


def test_chain_goes_on_over_files(folder: Path):
    last = write(folder, 30, rotate_bytes=1000)[-1]
    assert len(files_of(folder)) > 3
    assert verify(folder).end.head == last
    for file in files_of(folder):
        first = json.loads(file.read_bytes().splitlines()[0])
        assert file.name == f"audit-{first['sequence']:012d}.jsonl"
    files_of(folder)[1].unlink()
    with pytest.raises(AuditLogError, match="does not follow"):
        verify(folder)


def test_name_of_a_further_file_is_on_the_disk_before_a_line_is_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also where the disk refused it at first: a power cut could take it, and acknowledged lines."""
    write(folder, 5)
    named: list[int] = []

    def to_disk(_: Path) -> None:
        named.append(len(files_of(folder)))
        if named.count(2) == 1:
            raise OSError(errno.EIO, "a disk that stumbles")

    monkeypatch.setattr(audit_log, "flush_names", to_disk)

    async def story() -> None:
        with pytest.raises(AuditLogError, match="stumbles"):
            await log.append({"event": "answer"})
        await log.append({"event": "answer"})

    with AuditLog(folder, rotate_bytes=500) as log:
        asyncio.run(story())
    assert named == [1, 2, 2]
    assert [len(file.read_bytes().splitlines()) for file in files_of(folder)] == [5, 2]
    verify(folder)


def test_older_files_may_be_put_elsewhere_if_their_last_hash_is_said(folder: Path):
    write(folder, 30, rotate_bytes=1000)
    oldest = files_of(folder)[0]
    carried = json.loads(oldest.read_bytes().splitlines()[-1])["hash"]
    oldest.unlink()
    with pytest.raises(AuditLogError, match="put the earlier files back"):
        verify(folder)
    assert verify(folder, since=carried).begin.head == carried
    with pytest.raises(AuditLogError, match="put the earlier files back"):
        verify(folder, since="0" * 64)


@pytest.mark.parametrize("left", [b"", b'{"event":"ans'], ids=["no line", "half a line"])
def test_log_whose_last_whole_line_was_put_elsewhere_does_not_begin_anew_in_a_further_file(
    left: bytes, folder: Path
):
    """A kill right behind the making of that file leaves it so."""
    write(folder, 5)
    (older,) = files_of(folder)
    further = folder / file_name(6)
    further.write_bytes(left)
    away = older.rename(folder.with_name("older"))
    with pytest.raises(AuditLogError, match=r"000006\.jsonl: .*the earlier files back"):
        write(folder, 1)
    assert further.read_bytes() == left
    away.rename(older)
    write(folder, 1)
    assert verify(folder).files == 2


@pytest.mark.parametrize("before", [ChainEnd(4, GENESIS), ChainEnd(0, "a" * 64)], ids=["line 5", "line 1"])
def test_first_line_has_the_first_number_if_and_only_if_it_follows_nothing(before: ChainEnd, folder: Path):
    folder.mkdir()
    (folder / file_name(before.sequence + 1)).write_bytes(encode_line({"event": "answer"}, before)[0])
    with pytest.raises(AuditLogError, match="put the earlier files back"):
        verify(folder, since=before.head)


@pytest.mark.parametrize("read", [verify, read_tail])
def test_line_without_end_is_found_without_being_read_whole(read: Any, folder: Path):
    write(folder, 2)
    with files_of(folder)[0].open("r+b") as stream:
        stream.truncate(1 << 40)  # a hole: nothing is on the disk, and memory has no room for it
    with pytest.raises(AuditLogError, match=r"line 3 has more than 1048576 bytes"):
        read(folder)


@pytest.mark.parametrize("kept", [1, 5, 100, -2])
def test_half_written_line_is_recorded_never_dropped(kept: int, folder: Path):
    write(folder, 3)
    file = files_of(folder)[0]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]) + lines[2][:kept])
    with pytest.raises(AuditLogError, match=r"line 3 is cut off"):
        verify(folder)
    write(folder, 2)
    walked = verify(folder)
    assert (walked.torn, walked.end.sequence) == (1, 5)
    record = json.loads(file.read_bytes().splitlines()[3])
    assert record["event"] == "torn"
    assert record["torn_sha256"] == sha256(lines[2][:kept]).hexdigest()
    assert lines[2][:kept] in file.read_bytes()


@pytest.mark.parametrize(("kept", "torn"), [(-100, 1), (-1, 0)], ids=["half a line", "no line end"])
def test_full_file_is_repaired_where_its_line_was_left(kept: int, torn: int, folder: Path):
    write(folder, 5)
    file = files_of(folder)[0]
    file.write_bytes(file.read_bytes()[:kept])
    for start in range(2):
        write(folder, 2, rotate_bytes=500)
        walked = verify(folder)
        assert (walked.torn, walked.files) == (torn, 2 + start)
    assert file.read_bytes().endswith(b"\n")


def test_every_flipped_byte_around_a_half_written_line_is_found(folder: Path):
    write(folder, 2)
    file = files_of(folder)[0]
    file.write_bytes(file.read_bytes()[:-40])
    write(folder, 1)
    whole = file.read_bytes()
    verify(folder)
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << (place % 8)
        file.write_bytes(spoilt)
        with pytest.raises(AuditLogError):
            verify(folder)


def test_last_line_that_lacks_only_its_line_end_is_kept(folder: Path):
    last = write(folder, 3)[-1]
    file = files_of(folder)[0]
    file.write_bytes(file.read_bytes()[:-1])
    write(folder, 1)
    walked = verify(folder, head=last)
    assert (walked.torn, walked.end.sequence) == (0, 4)


def test_log_that_was_altered_is_not_written_on(folder: Path):
    write(folder, 3)
    file = files_of(folder)[0]
    spoilt = bytearray(file.read_bytes())
    spoilt[20] ^= 1
    file.write_bytes(spoilt)
    with pytest.raises(AuditLogError, match="line 1"):
        AuditLog(folder, 2**20)
    assert file.read_bytes() == spoilt


def test_only_one_process_writes(folder: Path):
    with AuditLog(folder, 2**20):
        code = (
            "import sys; from pathlib import Path; from triage_server.audit_log import AuditLog\n"
            "AuditLog(Path(sys.argv[1]), 1000)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, check=False
        )
        assert "another server writes" in done.stderr
    write(folder, 1)


def test_many_callers_share_a_flush_and_each_gets_its_own_line(folder: Path):
    async def at_once() -> list[Any]:
        return await asyncio.gather(*(log.append({"event": "answer", "number": n}) for n in range(200)))

    with AuditLog(folder, 2**20) as log:
        ends = asyncio.run(at_once())
    lines = {line["hash"]: line for line in map(json.loads, raw(folder).splitlines())}
    assert [lines[end.head]["number"] for end in ends] == list(range(200))
    assert sorted(end.sequence for end in ends) == list(range(1, 201))
    verify(folder)


@pytest.fixture
def small_files() -> Iterator[Any]:
    """Makes the kernel refuse to let any file of this process grow beyond a size, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(
        resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1])
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_is_an_error_for_each_caller_and_passes_by_itself(folder: Path, small_files: Any):
    async def story() -> None:
        await log.append({"event": "answer", "number": 0})
        size = files_of(folder)[0].stat().st_size
        small_files(size + 50)  # half a line still fits
        outcomes = await asyncio.gather(
            *(log.append({"event": "answer", "number": n}) for n in (1, 2)), return_exceptions=True
        )
        assert all(isinstance(outcome, AuditLogError) for outcome in outcomes)
        assert log.failed
        assert not await log.probe()
        small_files(None)
        await asyncio.sleep(1.1)
        assert await log.probe()
        await log.append({"event": "answer", "number": 3})

    with AuditLog(folder, 2**20) as log:
        asyncio.run(story())
    assert events(folder) == ["answer", "resumed", "answer"]
    assert json.loads(raw(folder).splitlines()[1])["unrecorded"] == 2
    assert verify(folder).torn == 0


def test_log_that_is_closed_on_a_full_disk_ends_with_a_whole_line(folder: Path, small_files: Any):
    log = AuditLog(folder, 2**20)
    asyncio.run(log.append({"event": "answer"}))
    small_files(files_of(folder)[0].stat().st_size + 50)  # half a line still fits
    log.close({"event": "closed"})
    assert events(folder) == ["answer"]
    verify(folder)


@pytest.fixture
def stalling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A volume whose flush returns only while it is let: a network disk that is gone gives no error."""
    answering = threading.Event()
    answering.set()
    flush = audit_log._flush

    def patient(handle: int) -> None:
        answering.wait()
        flush(handle)

    monkeypatch.setattr(audit_log, "_flush", patient)
    yield answering
    answering.set()


def test_disk_that_does_not_answer_is_an_error_in_time_and_passes_by_itself(folder: Path, stalling: Any):
    async def story() -> None:
        await log.append({"event": "answer", "number": 0})
        stalling.clear()
        first = asyncio.create_task(log.append({"event": "answer", "number": 1}))
        await asyncio.sleep(0.1)  # it is being flushed; the second waits behind it
        second = asyncio.create_task(log.append({"event": "answer", "number": 2}))
        began = asyncio.get_running_loop().time()
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert all(isinstance(outcome, AuditLogError) for outcome in outcomes)
        assert 0.2 < asyncio.get_running_loop().time() - began < 2.0
        assert log.failed
        assert not await log.probe()  # at once: what hangs is not asked again
        stalling.set()
        while log.failed:
            await asyncio.sleep(0.01)
        assert await log.probe()
        await log.append({"event": "answer", "number": 3})

    with AuditLog(folder, 2**20, timeout_s=0.4) as log:
        asyncio.run(asyncio.wait_for(story(), 20))
    lines = [json.loads(line) for line in raw(folder).splitlines()]
    # The line whose flush came too late stands; the one behind it was never begun.
    assert [line.get("number", line["event"]) for line in lines] == [0, 1, "resumed", 3]
    assert lines[2]["unrecorded"] == 1
    verify(folder)


def test_line_of_a_client_that_left_while_it_waited_is_written_and_is_no_failure_of_the_disk(
    folder: Path, stalling: Any
):
    async def story() -> None:
        stalling.clear()
        first = asyncio.create_task(log.append({"event": "answer", "number": 0}))
        await asyncio.sleep(0.1)  # it is being flushed; the second waits behind it
        second = asyncio.create_task(log.append({"event": "answer", "number": 1}))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        stalling.set()
        await first
        await log.append({"event": "answer", "number": 2})
        assert not log.failed

    with AuditLog(folder, 2**20) as log:
        asyncio.run(asyncio.wait_for(story(), 20))
    lines = [json.loads(line) for line in raw(folder).splitlines()]
    assert [line.get("number", line["event"]) for line in lines] == [0, 1, 2]


def test_disk_that_answers_again_is_said_in_the_log(
    folder: Path, stalling: Any, caplog: pytest.LogCaptureFixture
):
    async def story() -> None:
        stalling.clear()
        with pytest.raises(AuditLogError):
            await log.append({"event": "answer"})
        stalling.set()
        while log.failed:
            await asyncio.sleep(0.01)

    with AuditLog(folder, 2**20, timeout_s=0.2) as log:
        asyncio.run(asyncio.wait_for(story(), 20))
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["ERROR", "WARNING"]
    assert said[-1][1] == "audit log can be written again"


def test_line_that_comes_in_the_turn_of_a_look_is_watched_too(
    folder: Path, stalling: Any, monkeypatch: pytest.MonkeyPatch
):
    async def story() -> None:
        loop = asyncio.get_running_loop()
        await log.append({"event": "answer", "number": 0})
        ticking, due = loop.time, log._waiting[0][0]
        await asyncio.sleep(due - loop.time() + 0.05)  # the look has been, and nothing waits
        stalling.clear()
        monkeypatch.setattr(loop, "time", lambda: due)  # as uvloop's, which moves between turns alone
        late = asyncio.create_task(log.append({"event": "answer", "number": 1}))
        await asyncio.sleep(0)
        monkeypatch.setattr(loop, "time", ticking)
        with pytest.raises(AuditLogError):
            await late

    with AuditLog(folder, 2**20, timeout_s=0.3) as log:
        asyncio.run(asyncio.wait_for(story(), 5))
        stalling.set()


@pytest.mark.parametrize("moved", ["folder", "file", "file, another in its place"])
def test_log_that_was_moved_away_takes_no_line_until_it_is_back(moved: str, folder: Path):
    async def story() -> None:
        await log.append({"event": "answer", "number": 0})
        place = folder if moved == "folder" else files_of(folder)[0]
        away = place.with_name("away")
        place.rename(away)
        if "another" in moved:
            place.write_bytes(away.read_bytes())
        for number in (1, 2):
            with pytest.raises(AuditLogError, match="moved or deleted; put it back"):
                await log.append({"event": "answer", "number": number})
        assert log.failed
        await asyncio.sleep(1.1)
        assert not await log.probe()
        away.rename(place)
        await asyncio.sleep(1.1)
        assert await log.probe()
        await log.append({"event": "answer", "number": 3})

    with AuditLog(folder, 2**20) as log:
        asyncio.run(story())
    lines = [json.loads(line) for line in raw(folder).splitlines()]
    assert [line.get("number", line["event"]) for line in lines] == [0, "resumed", 3]
    assert lines[1]["unrecorded"] == 2
    verify(folder)


def test_log_whose_file_was_deleted_takes_no_line_and_begins_anew_at_the_next_start(folder: Path):
    async def story() -> None:
        for file in files_of(folder):
            file.unlink()
        with pytest.raises(AuditLogError, match="restart the server"):
            await log.append({"event": "answer"})

    with AuditLog(folder, 2**20, {"event": "opened"}) as log:
        asyncio.run(story())
    assert files_of(folder) == []
    write(folder, 1)
    assert events(folder) == ["answer"]


@pytest.mark.parametrize("size", [0, 100])
def test_log_that_was_shortened_takes_no_line_until_it_is_restored(size: int, folder: Path):
    """As ``logrotate`` with ``copytruncate`` does, or somebody who frees space in haste."""

    async def story() -> None:
        file = files_of(folder)[0]
        whole = file.read_bytes()
        os.truncate(file, size)
        for number in (1, 2):
            with pytest.raises(AuditLogError, match=rf"has {size} bytes.*restore it or restart"):
                await log.append({"event": "answer", "number": number})
        assert file.stat().st_size == size  # not filled up with zeros
        file.write_bytes(whole)
        await log.append({"event": "answer", "number": 3})

    with AuditLog(folder, 2**20, {"event": "opened"}) as log:
        asyncio.run(story())
    lines = [json.loads(line) for line in raw(folder).splitlines()]
    assert [line.get("number", line["event"]) for line in lines] == ["opened", "resumed", 3]
    assert lines[1]["unrecorded"] == 2
    verify(folder)


def test_second_server_whose_lock_was_deleted_stops_the_first_and_no_line_is_lost(folder: Path):
    """Someone took the lock for the remains of a crash."""

    async def story() -> None:
        await first.append({"event": "answer", "number": 0})
        (folder / "lock").unlink()
        with AuditLog(folder, 2**20, {"event": "opened"}) as second:
            for number in (1, 2):
                with pytest.raises(AuditLogError, match="another program"):
                    await first.append({"event": "answer", "number": number})
            await second.append({"event": "answer", "number": 3})

    with AuditLog(folder, 2**20) as first:
        asyncio.run(story())
    lines = [json.loads(line) for line in raw(folder).splitlines()]
    assert [line.get("number", line["event"]) for line in lines] == [0, "opened", 3]
    verify(folder)


def test_log_on_a_disk_that_does_not_answer_is_closed_in_time(folder: Path, stalling: Any):
    async def story() -> None:
        with pytest.raises(AuditLogError, match=r"did not answer within 0\.2 s"):
            await log.append({"event": "answer"})

    log = AuditLog(folder, 2**20, timeout_s=0.2)
    stalling.clear()
    asyncio.run(story())
    began = time.monotonic()
    log.close({"event": "closed"})
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("room", [0, 10])
def test_log_on_a_disk_that_is_full_at_the_start_is_refused_and_left_alone(
    room: int, folder: Path, small_files: Any
):
    write(folder, 2)
    file = files_of(folder)[0]
    file.write_bytes(file.read_bytes()[:-20])
    before = file.read_bytes()
    small_files(len(before) + room)
    with pytest.raises(AuditLogError, match="cannot be written"):
        AuditLog(folder, 2**20)
    small_files(None)
    assert file.read_bytes() == before
    write(folder, 1)
    verify(folder)


def test_folder_key_and_files_are_for_their_owner_alone(folder: Path):
    write(folder, 1)
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())


def test_inputs_are_hashed_under_the_site_s_key(folder: Path):
    with AuditLog(folder, 2**20) as log:
        found = log.hash_of(b"a photograph")
    key = bytes.fromhex((folder / KEY_FILE).read_text().strip())
    assert found == hmac.new(key, b"a photograph", "sha256").hexdigest()
    assert found != sha256(b"a photograph").hexdigest()
    with AuditLog(folder, 2**20) as log:
        assert log.hash_of(b"a photograph") == found


def test_damaged_key_is_refused_and_not_replaced(folder: Path):
    write(folder, 1)
    (folder / KEY_FILE).write_text("")
    with pytest.raises(AuditLogError, match="hexadecimal"):
        AuditLog(folder, 2**20)
    assert (folder / KEY_FILE).read_bytes() == b""


def test_lost_key_is_missed_and_no_other_is_made_beside_its_lines(folder: Path):
    write(folder, 1)
    kept = (folder / KEY_FILE).rename(folder.parent / "kept")
    with pytest.raises(AuditLogError, match="restore it from its backup"):
        AuditLog(folder, 2**20)
    assert not (folder / KEY_FILE).exists()
    kept.rename(folder / KEY_FILE)
    write(folder, 1)
