"""A download that is cut, wrong, gone or too large, from a real server to a real disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap
import zipfile
from io import BytesIO
from pathlib import Path
from typing import IO

import pytest

from lesion_triage.data.catalogue import download
from lesion_triage.data.catalogue.fetch import fetch
from lesion_triage.errors import DownloadError
from local_origin import Cut, Odd, Status, Unmeasured

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
ACCEPTED = "CC-BY-4.0"


def files_left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_file_arrives_whole_and_its_origin_is_recorded(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    small = entry({"name": "a.bin", "sha256": SHA256, "md5": MD5, "size_bytes": len(CONTENT)})
    assert fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries) == 0
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert files_left(tmp_path) == {"a.bin", "FETCHED.json"}
    record = json.loads((tmp_path / "FETCHED.json").read_text())
    assert record["licence_accepted"] == ACCEPTED
    assert record["files"]["a.bin"]["url"] == f"{origin.url}/a.bin"
    assert record["files"]["a.bin"]["sha256"] == SHA256
    assert record["files"]["a.bin"]["verified"] == "published checksum"


def test_after_a_cut_only_the_rest_is_asked_for(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Cut(1_000_000), Cut(500_000)]
    fetch(entry({"name": "a.bin", "sha256": SHA256}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [one.range for one in origin.asked] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert {one.if_range for one in origin.asked[1:]} == {origin.tags["/a.bin"]}


def test_a_later_call_goes_on_where_the_first_gave_up(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Cut(1_200_000), Status(503), Status(503)]
    small = entry({"name": "a.bin", "sha256": SHA256})
    with pytest.raises(
        DownloadError, match=r"503.*3 times in a row.*1,200,000 bytes are kept in a\.bin\.part"
    ):
        fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert "a.bin" not in files_left(tmp_path)
    origin.asked.clear()
    fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert [one.range for one in origin.asked] == ["bytes=1200000-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("server", [[], [Odd(if_range=False)]], ids=["heeds If-Range", "ignores If-Range"])
def test_a_file_that_changed_in_between_comes_whole_and_is_not_patched_together(
    origin, entry, fast_retries, tmp_path, server
):
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Cut(1_000_000), Status(500), Status(500)]
    small = entry({"name": "a.bin"})
    with pytest.raises(DownloadError):
        fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    newer = CONTENT[::-1]
    origin.put("/a.bin", newer)
    origin.script["/a.bin"] = list(server)
    fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert (tmp_path / "a.bin").read_bytes() == newer


def test_a_part_that_nothing_vouches_for_is_not_continued(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    origin.tags["/a.bin"] = None
    origin.script["/a.bin"] = [Cut(1_000_000)]
    fetch(entry({"name": "a.bin"}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert [one.range for one in origin.asked] == [None, None]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_weak_tag_vouches_for_nothing(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    origin.tags["/a.bin"] = 'W/"1"'
    origin.script["/a.bin"] = [Cut(1_000_000)]
    fetch(entry({"name": "a.bin"}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert [(one.range, one.if_range) for one in origin.asked] == [(None, None), (None, None)]


@pytest.mark.parametrize(
    "odd",
    [
        Odd(ranges=False),
        Odd(headers={"Content-Range": "bytes 7-2999999/3000000"}),
        Odd(headers={"Content-Range": "nonsense"}),
    ],
    ids=["ignores ranges", "begins elsewhere", "says nonsense"],
)
def test_a_server_that_cannot_continue_sends_it_all_again(origin, entry, fast_retries, tmp_path, odd):
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Cut(1_000_000), odd]
    fetch(entry({"name": "a.bin", "sha256": SHA256}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_server_that_always_begins_again_and_is_cut_at_random_is_given_up(
    origin, entry, fast_retries, tmp_path
):
    origin.put("/a.bin", CONTENT)
    lengths = (1_000_000, 500_000, 800_000, 400_000, 600_000)
    origin.script["/a.bin"] = [Cut(length, ranges=False) for length in lengths]
    with pytest.raises(DownloadError, match="3 times in a row"):
        fetch(entry({"name": "a.bin", "sha256": SHA256}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert len(origin.asked) == 3


def test_a_second_process_is_refused_until_the_first_has_named_its_file(
    origin, entry, fast_retries, tmp_path, monkeypatch
):
    """Verifying takes minutes for a large file, and the second would write into what is being hashed."""
    origin.put("/a.bin", CONTENT)
    small = entry({"name": "a.bin"})
    refused: list[str] = []
    hashes = download.sha256_and_md5

    def meanwhile(path: Path) -> tuple[str, str]:
        with pytest.raises(DownloadError) as error:
            fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
        refused.append(str(error.value))
        return hashes(path)

    monkeypatch.setattr(download, "sha256_and_md5", meanwhile)
    fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert len(refused) == 1
    assert "another process is downloading it" in refused[0]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_file_that_another_process_finished_meanwhile_is_not_overwritten(
    origin, entry, fast_retries, tmp_path, monkeypatch
):
    origin.put("/a.bin", CONTENT)
    origin.tags["/a.bin"] = None
    part, lock = tmp_path / "a.bin.part", download.fcntl.flock
    part.write_bytes(CONTENT)

    def finish_first(stream: IO[bytes], operation: int) -> None:
        part.replace(tmp_path / "a.bin")
        lock(stream, operation)

    monkeypatch.setattr(download.fcntl, "flock", finish_first)
    with pytest.raises(DownloadError, match="another process"):
        fetch(entry({"name": "a.bin"}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.bin.part.json").write_text(
        json.dumps({"url": f"{origin.url}/a.bin", "validator": origin.tags["/a.bin"], "size_bytes": None})
    )
    fetch(entry({"name": "a.bin", "sha256": SHA256}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_whole_part_is_verified_and_not_asked_for_again(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    state = {"url": f"{origin.url}/a.bin", "validator": origin.tags["/a.bin"], "size_bytes": len(CONTENT)}
    (tmp_path / "a.bin.part.json").write_text(json.dumps(state))
    fetch(entry({"name": "a.bin", "sha256": SHA256}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert origin.asked == []
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Status(500), Status(429, {"Retry-After": "0"})]
    fetch(entry({"name": "a.bin", "sha256": SHA256}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert len(origin.asked) == 3


@pytest.mark.parametrize("asked", ["7", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_busy_server_says_how_long_to_wait_in_seconds_or_as_a_date(origin, entry, tmp_path, asked):
    class Waits(download.RetryPolicy):
        def wait(self, failures: int, asked_s: float | None) -> None:
            asked_for.append(asked_s or 0)

    asked_for: list[float] = []
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Status(503, {"Retry-After": asked})]
    fetch(entry({"name": "a.bin", "sha256": SHA256}), tmp_path, ACCEPTED, retry_policy=Waits())
    assert asked_for[0] >= 7


def test_progress_renews_the_patience(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Cut(100_000)] * 10
    fetch(entry({"name": "a.bin", "sha256": SHA256}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert len(origin.asked) == 11 > fast_retries.max_attempts


def test_wrong_bytes_never_get_the_name(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(DownloadError, match=f"expected MD5 {MD5} .the test., found"):
        fetch(entry({"name": "a.bin", "md5": MD5}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert files_left(tmp_path) == {"a.bin.rejected"}


def test_another_size_is_refused_before_the_download(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    with pytest.raises(DownloadError, match="expected 5 bytes as published, the server has 3,000,000"):
        fetch(entry({"name": "a.bin", "size_bytes": 5}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert not {"a.bin", "a.bin.rejected"} & files_left(tmp_path)


def test_a_missing_file_is_looked_for_at_the_older_address(origin, entry, fast_retries, tmp_path):
    origin.put("/old/a.bin", CONTENT)
    urls = [f"{origin.url}/new/a.bin", f"{origin.url}/old/a.bin"]
    fetch(entry({"name": "a.bin", "urls": urls}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert [one.path for one in origin.asked] == ["/new/a.bin", "/old/a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_file_that_is_gone_is_not_asked_for_twice(origin, entry, fast_retries, tmp_path):
    with pytest.raises(DownloadError, match=r"a\.bin: not at its official address .*answered 404"):
        fetch(entry({"name": "a.bin"}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert len(origin.asked) == 1


def test_a_login_is_no_file(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", b"<html>please sign in</html>")
    origin.script["/a.bin"] = [Odd(headers={"Content-Type": "text/html; charset=utf-8"}), Status(403)]
    with pytest.raises(DownloadError, match="found a web page"):
        fetch(entry({"name": "a.bin"}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    with pytest.raises(DownloadError, match="answered 403"):
        fetch(entry({"name": "a.bin"}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert "a.bin" not in files_left(tmp_path)


def test_a_server_that_is_not_there_is_named(entry, fast_retries, tmp_path):
    said = r"127\.0\.0\.1:1/a\.bin: the connection failed .*refused.*3 times"
    with pytest.raises(DownloadError, match=said):
        fetch(
            entry({"name": "a.bin", "urls": ["http://127.0.0.1:1/a.bin"]}),
            tmp_path,
            ACCEPTED,
            retry_policy=fast_retries,
        )


def test_the_first_download_is_trusted_and_the_second_is_held_to_it(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    small = entry({"name": "a.bin"})
    fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    record = json.loads((tmp_path / "FETCHED.json").read_text())["files"]["a.bin"]
    assert (record["sha256"], record["verified"]) == (SHA256, "first use")
    (tmp_path / "a.bin").unlink()
    origin.put("/a.bin", CONTENT[::-1])
    with pytest.raises(
        DownloadError, match=rf"expected SHA-256 {SHA256} .FETCHED\.json, at the first download"
    ):
        fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert "a.bin" not in files_left(tmp_path)


def test_a_file_of_unknown_length_may_have_been_cut_and_binds_nobody(
    origin, entry, fast_retries, tmp_path, capsys
):
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Unmeasured(after_bytes=1_000_000)]
    small = entry({"name": "a.bin"})
    for said in ("1,000,000 bytes, NOT VERIFIED", "already there, NOT VERIFIED"):
        fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
        assert f"a.bin: {said}" in capsys.readouterr().out
    record = json.loads((tmp_path / "FETCHED.json").read_text())["files"]["a.bin"]
    assert record["verified"] == "nothing, not even its length"
    (tmp_path / "a.bin").unlink()
    fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert json.loads((tmp_path / "FETCHED.json").read_text())["files"]["a.bin"]["verified"] == "first use"


def test_a_published_size_tells_that_a_file_of_unknown_length_was_cut(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Unmeasured(after_bytes=1_000_000)]
    with pytest.raises(DownloadError, match=r"expected bytes 3000000 .as published., found 1000000"):
        fetch(
            entry({"name": "a.bin", "size_bytes": 3_000_000}), tmp_path, ACCEPTED, retry_policy=fast_retries
        )
    assert "a.bin" not in files_left(tmp_path)


def test_an_answer_in_chunks_says_itself_where_it_ends(origin, entry, fast_retries, tmp_path, capsys):
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Unmeasured(1_000_000, chunked=True), Unmeasured(chunked=True)]
    fetch(entry({"name": "a.bin"}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert "NOT VERIFIED" not in capsys.readouterr().out


def test_what_is_there_is_verified_and_not_fetched_again(origin, entry, fast_retries, tmp_path, capsys):
    origin.put("/a.bin", CONTENT)
    small = entry({"name": "a.bin", "sha256": SHA256})
    fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    origin.asked.clear()
    fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert origin.asked == []
    assert "already there" in capsys.readouterr().out
    (tmp_path / "a.bin").write_bytes(b"altered")
    with pytest.raises(DownloadError, match="move it away"):
        fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert (tmp_path / "a.bin").read_bytes() == b"altered"


@pytest.mark.parametrize("said", ["", "MIT"])
def test_nothing_is_asked_for_before_the_licence_is_accepted(origin, entry, fast_retries, tmp_path, said):
    origin.put("/a.bin", CONTENT)
    with pytest.raises(DownloadError, match=r"--accept-licence CC-BY-4\.0"):
        fetch(entry({"name": "a.bin"}), tmp_path / "new", said, retry_policy=fast_retries)
    assert origin.asked == []
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_too_small_is_seen_before_the_first_byte(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    with pytest.raises(DownloadError, match=r"more bytes are needed, the disk has .* nothing was downloaded"):
        fetch(entry({"name": "a.bin", "about_bytes": 10**18}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert origin.asked == []
    origin.script["/a.bin"] = [Odd(headers={"Content-Length": str(10**18)})]
    with pytest.raises(DownloadError, match=r"1,000,000,000,000,000,000 more bytes are needed"):
        fetch(entry({"name": "a.bin"}), tmp_path, ACCEPTED, retry_policy=fast_retries)


FILL = """
    import resource, sys
    from pathlib import Path
    from lesion_triage.data.catalogue.entry import Dataset
    from lesion_triage.data.catalogue.fetch import fetch
    from lesion_triage.errors import DownloadError
    entry, folder, limit = Dataset.model_validate_json(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        fetch(entry, folder, "CC-BY-4.0")
    except DownloadError as error:
        print(error)
        sys.exit(2)
"""


def filled(small, folder: Path, limit_bytes: int) -> subprocess.CompletedProcess[str]:
    words = [
        sys.executable,
        "-c",
        textwrap.dedent(FILL),
        small.model_dump_json(),
        str(folder),
        str(limit_bytes),
    ]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("limit_bytes", [1_234_567, 2_900_000])
def test_a_file_that_the_system_refuses_to_let_grow_is_kept_as_far_as_it_came(
    origin, entry, tmp_path, limit_bytes
):
    """The limit on a file's size is the kernel's own: write() fails, in the middle or in the last block."""
    origin.put("/a.bin", CONTENT)
    small = entry({"name": "a.bin", "sha256": SHA256})
    done = filled(small, tmp_path, limit_bytes)
    assert done.returncode == 2, done.stderr
    assert f"the disk is full; {limit_bytes:,} bytes are kept" in done.stdout
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:limit_bytes]
    origin.asked.clear()
    assert filled(small, tmp_path, 0).returncode == 0
    assert [one.range for one in origin.asked] == [f"bytes={limit_bytes}-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["a.bin", "deep/a.bin"])
def test_a_folder_that_cannot_be_made_is_one_sentence(origin, entry, fast_retries, tmp_path, name):
    origin.put(f"/{name}", CONTENT)
    (tmp_path / "deep").write_text("no folder")
    folder = tmp_path if name.startswith("deep") else tmp_path / "deep" / "down"
    with pytest.raises(DownloadError, match="it cannot be written"):
        fetch(entry({"name": name, "sha256": SHA256}), folder, ACCEPTED, retry_policy=fast_retries)


@pytest.mark.parametrize("limit_bytes", [10, 150])
def test_a_record_that_the_disk_has_no_room_for_is_one_sentence(origin, entry, tmp_path, limit_bytes):
    """First the record of what comes, then the record of what came, which is longer."""
    origin.put("/a.bin", b"short")
    done = filled(entry({"name": "a.bin"}), tmp_path, limit_bytes)
    assert (done.returncode, done.stderr) == (2, "")
    assert "the disk is full. Make room" in done.stdout
    assert filled(entry({"name": "a.bin"}), tmp_path, 0).returncode == 0
    assert files_left(tmp_path) == {"a.bin", "FETCHED.json"}


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="mounting a small disk takes root on Linux"
)
def test_on_a_disk_that_fills_up_the_part_is_kept_and_continued_elsewhere(origin, entry, tmp_path):
    origin.put("/a.bin", CONTENT)
    origin.script["/a.bin"] = [Odd(headers={"Content-Length": "", "Connection": "close"})]
    disk, roomy = tmp_path / "disk", tmp_path / "roomy"
    disk.mkdir()
    roomy.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(
            f"NO SMALL DISK ({mounted.stderr.strip()}): a full disk was tried by a limit on files only"
        )
    try:
        small = entry({"name": "a.bin", "sha256": SHA256})
        done = filled(small, disk, 0)
        assert done.returncode == 2, done.stderr
        assert "the disk is full" in done.stdout
        kept = (disk / "a.bin.part").read_bytes()
        assert 0 < len(kept) <= 1 << 20
        assert CONTENT.startswith(kept)
        for name in ("a.bin.part", "a.bin.part.json"):
            (roomy / name).write_bytes((disk / name).read_bytes())
    finally:
        subprocess.run(["umount", disk], check=True)
    assert filled(small, roomy, 0).returncode == 0
    assert origin.asked[-1].range == f"bytes={len(kept)}-"
    assert (roomy / "a.bin").read_bytes() == CONTENT


def test_a_second_process_does_not_write_into_the_same_part(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys\n"
            "stream = open(sys.argv[1], 'ab')\n"
            "fcntl.flock(stream, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()",
            str(tmp_path / "a.bin.part"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DownloadError, match="another process is downloading it"):
            fetch(entry({"name": "a.bin"}), tmp_path, ACCEPTED, retry_policy=fast_retries)
        holder.communicate("")


def test_pictures_that_a_table_names_are_fetched_one_by_one_and_absent_ones_counted(
    origin, entry, fast_retries, tmp_path, capsys
):
    origin.put("/cases.csv", b"case_id,one,two\n1,images/a b.png,images/c.png\n2,images/gone.png,\n")
    origin.put("/images/a%20b.png", b"first")
    origin.put("/images/c.png", b"second")
    listed = {"table": "cases.csv", "columns": ["one", "two"], "base_url": f"{origin.url}/"}
    small = entry({"name": "cases.csv"}, listed=listed)
    assert fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries) == 1
    assert (tmp_path / "images" / "a b.png").read_bytes() == b"first"
    assert (tmp_path / "images" / "c.png").read_bytes() == b"second"
    assert (
        "1 are named by the table but not on the server, such as images/gone.png" in capsys.readouterr().out
    )
    origin.asked.clear()
    fetch(small, tmp_path, ACCEPTED, retry_policy=fast_retries)
    assert [one.path for one in origin.asked] == ["/images/gone.png"]


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../out.png"])
def test_a_table_cannot_name_a_place_outside_the_folder(origin, entry, fast_retries, tmp_path, name):
    origin.put("/cases.csv", f"one\n{name}\n".encode())
    listed = {"table": "cases.csv", "columns": ["one"], "base_url": f"{origin.url}/"}
    with pytest.raises(DownloadError, match="not the path of a picture"):
        fetch(
            entry({"name": "cases.csv"}, listed=listed), tmp_path / "in", ACCEPTED, retry_policy=fast_retries
        )
    assert files_left(tmp_path) == {"in/cases.csv", "in/FETCHED.json"}


def test_figshare_is_asked_for_addresses_sizes_and_checksums(origin, entry, fast_retries, tmp_path):
    origin.put("/files/7", CONTENT)
    said = {
        "id": 7,
        "name": "a.bin",
        "size": len(CONTENT),
        "is_link_only": False,
        "download_url": f"{origin.url}/files/7",
        "supplied_md5": "",
        "computed_md5": MD5,
    }
    origin.put("/v2/articles/5/files?page_size=100", json.dumps([said]).encode())
    fetch(
        entry(figshare_article=5), tmp_path, ACCEPTED, retry_policy=fast_retries, figshare=f"{origin.url}/v2"
    )
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    (tmp_path / "a.bin").unlink()
    origin.put("/v2/articles/5/files?page_size=100", b'{"message": "no such article"}')
    with pytest.raises(DownloadError, match="expected a list of files"):
        fetch(
            entry(figshare_article=5),
            tmp_path,
            ACCEPTED,
            retry_policy=fast_retries,
            figshare=f"{origin.url}/v2",
        )


def test_only_the_files_that_were_named_are_fetched(origin, entry, fast_retries, tmp_path):
    origin.put("/small.bin", b"small")
    origin.put("/large.bin", b"large")
    both = entry({"name": "small.bin"}, {"name": "large.bin", "optional": True})
    fetch(both, tmp_path / "usual", ACCEPTED, retry_policy=fast_retries)
    assert files_left(tmp_path / "usual") == {"small.bin", "FETCHED.json"}
    fetch(both, tmp_path / "named", ACCEPTED, only=["large.bin"], retry_policy=fast_retries)
    assert files_left(tmp_path / "named") == {"large.bin", "FETCHED.json"}
    with pytest.raises(DownloadError, match=r"did you mean 'large\.bin'"):
        fetch(both, tmp_path / "misspelt", ACCEPTED, only=["larg.bin"], retry_policy=fast_retries)


def test_one_folder_holds_one_dataset(origin, entry, fast_retries, tmp_path):
    origin.put("/a.bin", CONTENT)
    fetch(entry({"name": "a.bin"}), tmp_path, ACCEPTED, retry_policy=fast_retries)
    with pytest.raises(DownloadError, match="holds small; choose another folder for other"):
        fetch(entry({"name": "a.bin"}, name="other"), tmp_path, ACCEPTED, retry_policy=fast_retries)


def test_archives_are_unpacked_if_asked_for(origin, entry, fast_retries, tmp_path):
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("images/1.png", b"one")
    origin.put("/pictures.zip", packed.getvalue())
    fetch(entry({"name": "pictures.zip"}), tmp_path, ACCEPTED, retry_policy=fast_retries, unpack_too=True)
    assert (tmp_path / "pictures" / "images" / "1.png").read_bytes() == b"one"
