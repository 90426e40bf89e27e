"""Who is let in by a key, and at which pace: a real server each time."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

import httpx_60s
from lesion_triage.errors import ConfigError
from triage_server.api_keys import KeyFile, new_key, read_keys, revoke
from triage_server.cli import main
from triage_server.problems import RequestError
from triage_server.security import Caller, RateLimiter

JPEG = {"Content-Type": "image/jpeg"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def post(server: Any, picture: bytes, token: str | None = None, **headers: str) -> httpx.Response:
    shown = JPEG | headers | (bearer(token) if token is not None else {})
    return httpx_60s.post(f"{server.url}/v1/triage", content=picture, headers=shown)


def code(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str, str]:
    """File of keys, a key that may score, a key that may read."""
    file = tmp_path / "keys"
    return file, new_key(file, "clinic-a", "score"), new_key(file, "watch", "read")


def test_key_lets_in_and_nothing_else_does(launch: Any, keys: Any, draw: Any):
    file, key, _ = keys
    with launch(TRIAGE_API_KEYS_FILE=str(file)) as server:
        assert post(server, draw(), key).status_code == 200
        stranger = new_key(file.with_name("others"), "stranger", "score")
        wrong = [key[:-1], key + "x", key.upper(), "ltk_", stranger, key.split("_")[1], "x" * 9000]
        wrong += [f"ltk_{key.split('_')[1]}_{'A' * 43}", "a.b.c"]
        for token in wrong:
            refused = post(server, draw(), token)
            assert code(refused) == (401, "not_authenticated")
            assert refused.headers["www-authenticate"].startswith("Bearer ")
        for headers in ({}, {"Authorization": key}, {"Authorization": f"Basic {key}"}, {"X-Api-Key": key}):
            refused = httpx_60s.post(f"{server.url}/v1/triage", content=draw(), headers=JPEG | headers)
            assert code(refused) == (401, "not_authenticated")
        twice = [*JPEG.items(), *bearer(key).items(), *bearer(stranger).items()]
        assert code(httpx_60s.post(f"{server.url}/v1/triage", content=draw(), headers=twice))[0] == 401


def test_only_health_is_open_and_no_path_tells_whether_it_exists(launch: Any, keys: Any):
    file, key, _ = keys
    with launch(TRIAGE_API_KEYS_FILE=str(file)) as server:
        for path in ("/health/live", "/health/ready"):
            assert httpx_60s.get(server.url + path).status_code == 200
        closed = (
            "/",
            "/v1/bundle",
            "/v1/certificate",
            "/metrics",
            "/openapi.json",
            "/nothing",
            "/health/live/",
        )
        for path in closed:
            assert code(httpx_60s.get(server.url + path)) == (401, "not_authenticated")
        for path in ("/v1/bundle", "/v1/certificate", "/metrics", "/openapi.json"):
            assert httpx_60s.get(server.url + path, headers=bearer(key)).status_code == 200


def test_key_for_reading_may_not_score(launch: Any, keys: Any, draw: Any):
    file, _, reading = keys
    with launch(TRIAGE_API_KEYS_FILE=str(file)) as server:
        assert httpx_60s.get(f"{server.url}/metrics", headers=bearer(reading)).status_code == 200
        assert code(post(server, draw(), reading)) == (403, "not_allowed")


def test_revoked_key_ends_and_new_key_begins_without_a_restart(launch: Any, keys: Any, draw: Any):
    file, key, _ = keys
    with launch(TRIAGE_API_KEYS_FILE=str(file)) as server:
        assert post(server, draw(), key).status_code == 200
        revoke(file, key.split("_")[1])
        fresh = new_key(file, "clinic-b", "score")
        time.sleep(1.1)
        assert post(server, draw(), key).status_code == 401
        assert post(server, draw(), fresh).status_code == 200


def test_broken_key_file_lets_nobody_in_and_is_not_ready(launch: Any, keys: Any, draw: Any):
    file, key, _ = keys
    whole = file.read_text()
    with launch(TRIAGE_API_KEYS_FILE=str(file)) as server:
        file.write_text("half an ed")
        time.sleep(1.1)
        assert code(post(server, draw(), key)) == (503, "authentication_unavailable")
        assert code(httpx_60s.get(f"{server.url}/health/ready")) == (
            503,
            "authentication_unavailable",
        )
        file.write_text(whole)
        time.sleep(1.1)
        assert post(server, draw(), key).status_code == 200
        assert httpx_60s.get(f"{server.url}/health/ready").status_code == 200


def test_readiness_alone_finds_the_file_of_keys_broken_and_mended(launch: Any, keys: Any):
    file, _, _ = keys
    whole = file.read_text()
    with launch(TRIAGE_API_KEYS_FILE=str(file)) as server:
        for text, status in (("half an ed", 503), (whole, 200)):  # as behind a load balancer, no caller comes
            file.write_text(text)
            time.sleep(1.1)
            assert httpx_60s.get(f"{server.url}/health/ready").status_code == status


def test_key_is_kept_as_a_hash_for_its_owner_alone(keys: Any):
    file, key, _ = keys
    assert file.stat().st_mode & 0o077 == 0
    assert key not in file.read_text()
    assert key.split("_", 2)[2] not in file.read_text()
    assert sha256(key.encode()).hexdigest() in file.read_text()


ELSEWHERE = 54321
"""A user and a group that nobody has."""


def test_file_of_keys_keeps_its_readers_when_a_key_is_made_or_revoked(keys: Any):
    file, key, _ = keys
    if os.geteuid() == 0:
        os.chown(file, ELSEWHERE, ELSEWHERE + 1)
    file.chmod(0o640)
    before = file.stat()
    new_key(file, "clinic-b", "score")
    revoke(file, key.split("_")[1])
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert [record.label for record in read_keys(file).values()] == ["watch", "clinic-b"]


def test_file_of_keys_behind_a_link_is_changed_and_the_link_stays(keys: Any):
    file, key, _ = keys
    folder = file.parent / "elsewhere"
    folder.mkdir()
    link = folder / "keys"
    link.symlink_to(file)
    new_key(link, "clinic-b", "score")
    revoke(link, key.split("_")[1])
    assert link.is_symlink()
    assert [one.name for one in folder.iterdir()] == ["keys"]
    assert [record.label for record in read_keys(file).values()] == ["watch", "clinic-b"]


def test_key_that_is_made_or_revoked_is_so_after_a_power_cut(keys: Any, monkeypatch: pytest.MonkeyPatch):
    file, key, _ = keys
    flushed: list[tuple[bool, list[str]]] = []
    to_disk = os.fsync

    def noting(handle: int) -> None:
        flushed.append((stat.S_ISDIR(os.fstat(handle).st_mode), file.read_text().splitlines()))
        to_disk(handle)

    monkeypatch.setattr(os, "fsync", noting)
    for change in (
        lambda: new_key(file, "clinic-b", "score"),
        lambda: revoke(file, key.split("_")[1]),
    ):
        change()
        # First what stands in the file, then, with the new one in its place, the name in the folder.
        assert [folder for folder, _ in flushed] == [False, True]
        assert flushed.pop()[1] == file.read_text().splitlines() != flushed.pop()[1]


def test_a_change_of_keys_that_a_power_cut_may_undo_is_told_from_one_that_was_not_made(
    keys: Any, monkeypatch: pytest.MonkeyPatch
):
    file, key, _ = keys
    to_disk = os.fsync

    def refusing_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        to_disk(handle)

    monkeypatch.setattr(os, "fsync", refusing_folders)
    with pytest.raises(ConfigError, match="the keys were changed, but a power cut may undo the change"):
        revoke(file, key.split("_")[1])
    assert [record.label for record in read_keys(file).values()] == ["watch"]


def test_key_is_not_made_where_it_would_lock_the_file_s_readers_out():
    if os.geteuid() != 0:
        pytest.skip("only root can make a file that belongs to somebody else: nothing was tried")
    with tempfile.TemporaryDirectory() as folder:  # that of pytest is closed to other users
        file = Path(folder) / "keys"
        key = new_key(file, "clinic-a", "score")
        os.chown(file, ELSEWHERE, ELSEWHERE + 1)
        file.chmod(0o644)
        file.parent.chmod(0o777)
        whole = file.read_bytes()
        os.seteuid(ELSEWHERE + 2)
        try:
            for change in (
                lambda: new_key(file, "clinic-b", "score"),
                lambda: revoke(file, key.split("_")[1]),
            ):
                with pytest.raises(ConfigError, match=r"user 54321 and group 54322.*Nothing was changed"):
                    change()
        finally:
            os.seteuid(0)
        assert (file.read_bytes(), file.stat().st_uid) == (whole, ELSEWHERE)
        assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_key_file_that_anyone_may_write_is_refused(keys: Any):
    keys[0].chmod(0o602)
    with pytest.raises(ConfigError, match="add a key"):
        read_keys(keys[0])


def test_keys_are_made_listed_and_revoked_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def desk(*words: str) -> tuple[int, str]:
        return main(["keys", *words, "--file", str(tmp_path / "keys")]), capsys.readouterr().out

    status, shown = desk("new", "clinic-a")
    key = shown.strip()
    assert (status, key[:4]) == (0, "ltk_")
    assert desk("new", "clinic-a")[0] == 2
    assert desk("new", "Erika Mustermann")[0] == 2
    listed = desk("list")[1]
    assert "clinic-a" in listed
    assert key not in listed
    assert desk("revoke", "0" * 12)[0] == 2
    assert desk("revoke", key.split("_")[1])[0] == 0
    assert desk("list") == (0, "")


def asked(ask: Callable[..., httpx.Response], app: Any, **headers: str) -> int:
    return ask(
        app, "GET", "/v1/bundle", headers={name.replace("_", "-"): said for name, said in headers.items()}
    ).status_code


STRANGE: list[dict[str, str]] = [
    {"Host": "rebound.example:8080"},
    {"Host": "127.0.0.1.example"},
    {"Host": "notlocalhost"},
    {"Host": "localhost."},
    {"Host": "triage.localhost"},
    {"Host": "[::1"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Origin": "https://elsewhere.example"},
    {"Origin": "null"},
    {"Origin": "http://[::1"},
]
OWN: list[dict[str, str]] = [
    {},
    {"Host": ""},
    {"Host": "localhost:8080"},
    {"Host": "LocalHost"},
    {"Host": "[::1]:8080"},
    {"Host": "127.0.0.1", "Origin": "http://127.0.0.1:8080", "Sec_Fetch_Site": "same-origin"},
    {"Sec_Fetch_Site": "none"},
    {"Origin": "http://localhost:3000", "Sec_Fetch_Site": "same-site"},
]


def test_page_of_another_site_gets_nothing_where_nobody_is_asked(
    make_app: Callable[..., Any], ask: Callable[..., httpx.Response], tmp_path: Path
):
    app = make_app()
    assert [asked(ask, app, **one) for one in STRANGE] == [403] * len(STRANGE)
    assert [asked(ask, app, **one) for one in OWN] == [200] * len(OWN)
    refused = ask(app, "POST", "/v1/triage", headers={"Host": "rebound.example"})
    assert refused.json()["code"] == "from_elsewhere"
    assert "TRIAGE_API_KEYS_FILE" in refused.json()["detail"]
    assert [asked(ask, make_app(behind_tls_proxy=True), **one) for one in STRANGE] == [403] * len(STRANGE)
    for names in (("127.0.0.1", "rebound.example"), ("rebound.example", "127.0.0.1")):
        twice = ask(app, "GET", "/v1/bundle", headers=[("Host", name) for name in names])
        assert twice.status_code == 403
    assert ask(app, "GET", "/health/live", headers={"Host": "10.0.0.1"}).status_code == 200
    key = new_key(tmp_path / "keys", "platform", "score")
    known = make_app(api_keys_file=tmp_path / "keys")
    for behind in (
        make_app(behind_authenticating_proxy=True),
        known,
    ):
        for one in STRANGE:
            assert asked(ask, behind, **one, Authorization=f"Bearer {key}") == 200


CHANGES = """
import sys
from pathlib import Path
from triage_server.api_keys import new_key, revoke
print("ready", flush=True)
sys.stdin.readline()
file, change, *words = sys.argv[1:]
for word in words:
    print(revoke(Path(file), word).key_id if change == "revoke" else new_key(Path(file), word, "score"))
"""


def test_keys_that_are_made_and_revoked_at_once_are_all_made_and_all_revoked(tmp_path: Path):
    file = tmp_path / "keys"
    old = [new_key(file, f"old-{one}", "score").split("_")[1] for one in range(10)]
    changes = [
        ["revoke", *old[:5]],
        ["revoke", *old[5:]],
        ["new", *(f"a-{one}" for one in range(10))],
        ["new", *(f"b-{one}" for one in range(10))],
    ]
    line = [sys.executable, "-W", "error", "-c", CHANGES, str(file)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([*line, *change], **pipes) for change in changes]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * 4
    made = [*printed[2], *printed[3]]
    assert {key.split("_")[1] for key in made} == read_keys(file).keys()
    known = KeyFile(file)
    assert len(made) == 20
    assert all(known.find(key) for key in made)
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]  # who reads needs no lock


def test_lock_that_a_killed_process_left_stops_nobody_and_one_that_cannot_be_made_is_one_sentence(keys: Any):
    file, key, _ = keys
    lock = file.with_name(".keys.lock")
    lock.touch(0o600)
    new_key(file, "clinic-b", "score")
    assert not lock.exists()
    lock.symlink_to(file)
    whole = file.read_bytes()
    for change in (lambda: new_key(file, "clinic-c", "score"), lambda: revoke(file, key.split("_")[1])):
        with pytest.raises(ConfigError, match=r"the lock file \.keys\.lock cannot be opened beside it"):
            change()
    assert file.read_bytes() == whole


def test_each_key_has_its_own_pace(launch: Any, keys: Any, draw: Any):
    file, key, reading = keys
    with launch(TRIAGE_API_KEYS_FILE=str(file), TRIAGE_RATE_PER_MINUTE="3") as server:
        assert [post(server, draw(), key).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = post(server, draw(), key)
        assert code(refused) == (429, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 21
        assert httpx_60s.get(f"{server.url}/v1/bundle", headers=bearer(reading)).status_code == 200


@pytest.mark.parametrize(("per_minute", "cases"), [(30, 31), (30, 16), (1, 32), (600, 32)])
def test_batch_passes_after_the_pause_that_it_was_asked_for(per_minute: int, cases: int):
    limiter, caller = RateLimiter(per_minute), Caller("key:a", "score")
    for _ in range(per_minute):
        limiter.take(caller, 0.0)
    with pytest.raises(RequestError) as refusal:
        limiter.take(caller, 0.0)
    moment = float(refusal.value.headers["Retry-After"])
    limiter.take(caller, moment)
    if per_minute > 1:
        with pytest.raises(RequestError) as refusal:
            limiter.take_further_cases(caller, moment, cases - 1)
        moment += float(refusal.value.headers["Retry-After"])
        assert moment <= 61 + 60 / per_minute + 2
        limiter.take(caller, moment)
    limiter.take_further_cases(caller, moment, cases - 1)


def test_bucket_refills_evenly():
    limiter, caller = RateLimiter(60), Caller("key:a", "score")
    for _ in range(60):
        limiter.take(caller, 0.0)
    with pytest.raises(RequestError):
        limiter.take(caller, 0.5)
    limiter.take(caller, 1.6)
    with pytest.raises(RequestError):
        limiter.take(caller, 1.7)
    for _ in range(60):
        limiter.take(caller, 1000.0)
