"""A sealed bundle is whole and unchanged, or it is refused with one sentence."""

import os
import signal
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_bundle as tiny
from lesion_triage.bundle.calibration import PlattCalibrator
from lesion_triage.bundle.certificate import Certificate
from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.schema import Header, QualityLimits, SealedFile, SelfTest
from lesion_triage.bundle.store import open_bundle, seal
from lesion_triage.errors import BundleError

FILES = (
    "bundle.json",
    "policy.json",
    "certificate.json",
    "model.onnx",
    "MODEL_CARD.md",
    "selftest.json",
    "fitted.txt",
    "certified.txt",
    "selftest/referred.png",
    "selftest/unfamiliar.png",
    "selftest/below.png",
    "selftest/black.png",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle that a test may spoil."""
    return tiny.make(tmp_path / "bundle").folder


def refused(folder: Path, match: str) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        open_bundle(folder)
    sentence = str(caught.value)
    assert sentence.startswith(str(folder))
    assert sentence.endswith(".")
    assert "\n" not in sentence


def reseal(folder: Path, change: Callable[[Header], Header] = lambda header: header) -> None:
    """Seal what now lies in the folder: the hand of someone who knows the format."""
    files = {}
    for file in FILES[1:]:
        content = (folder / file).read_bytes()
        files[file] = SealedFile(sha256=sha256_of(content), size_bytes=len(content))
    header = Header.model_validate_json((folder / "bundle.json").read_bytes())
    header = change(header.model_copy(update={"files": files}))
    fields = header.model_dump(mode="json", exclude={"seal"})
    fields["seal"] = sha256_of(canonical_json(fields).encode())
    (folder / "bundle.json").write_text(canonical_json(fields))


# What a good bundle gives


def test_opens_as_it_was_sealed(folder: Path) -> None:
    parts = tiny.seal_arguments()
    bundle = open_bundle(folder)
    assert bundle.policy == parts["policy"]
    assert bundle.certificate == parts["certificate"]
    assert bundle.selftest == parts["selftest"]
    assert bundle.graph == parts["graph"]
    assert dict(bundle.selftest_pictures) == parts["selftest_pictures"]
    assert bundle.sha256 == sha256_of((folder / "bundle.json").read_bytes())
    assert sorted(bundle.header.files) == sorted(FILES[1:])
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(
        FILES
    )


def test_the_same_parts_give_the_same_bytes(tmp_path: Path) -> None:
    assert tiny.make(tmp_path / "one").sha256 == tiny.make(tmp_path / "other").sha256


def test_a_link_to_the_whole_bundle_may_stand_for_it(folder: Path) -> None:
    link = folder.with_name("current")
    link.symlink_to(folder)
    assert open_bundle(link).sha256 == open_bundle(folder).sha256


def test_an_opened_bundle_needs_its_folder_no_more(folder: Path) -> None:
    bundle = open_bundle(folder)
    (folder / "model.onnx").write_bytes(b"changed behind our back")
    assert sha256_of(bundle.graph) == bundle.certificate.model_sha256


def test_time_of_sealing_honours_source_date_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    header = seal(tmp_path / "bundle", **{**tiny.seal_arguments(), "created_at": None}).header
    assert header.created_at == "1970-01-02T00:00:00Z"


def test_time_of_sealing_is_now_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    header = seal(tmp_path / "bundle", **{**tiny.seal_arguments(), "created_at": None}).header
    assert abs(datetime.now(UTC) - datetime.fromisoformat(header.created_at)) < timedelta(minutes=1)


def test_time_of_sealing_is_written_in_utc(tmp_path: Path) -> None:
    created_at = datetime(2025, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    header = seal(tmp_path / "bundle", **{**tiny.seal_arguments(), "created_at": created_at}).header
    assert header.created_at == "2024-12-31T23:30:00Z"


def test_folder_can_be_read_by_whom_the_umask_lets(folder: Path) -> None:
    plain = folder.with_name("plain")
    plain.mkdir()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


# Changed, missing, added


def test_a_flipped_bit_anywhere_is_refused(folder: Path) -> None:
    for file in FILES:
        whole = (folder / file).read_bytes()
        for step in range(50):
            place = step * (len(whole) - 1) // 49
            spoilt = bytearray(whole)
            spoilt[place] ^= 1 << (step % 8)
            (folder / file).write_bytes(spoilt)
            refused(folder, file)
        (folder / file).write_bytes(whole)
    open_bundle(folder)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_edit_of_the_header_goes_unnoticed(folder: Path, data: st.DataObject) -> None:
    header = folder / "bundle.json"
    whole = header.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(start + 20, len(whole))))
    edited = whole[:start] + data.draw(st.binary(max_size=20)) + whole[end:]
    try:
        header.write_bytes(edited)
        if edited == whole:
            open_bundle(folder)
        else:
            refused(folder, "bundle.json")
    finally:
        header.write_bytes(whole)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(folder: Path, file: str, share: float) -> None:
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: int(len(whole) * share)])
    refused(folder, file)


@pytest.mark.parametrize("file", FILES)
def test_a_file_with_something_behind_it_is_refused(folder: Path, file: str) -> None:
    (folder / file).write_bytes((folder / file).read_bytes() + b"\n")
    refused(folder, file)


@pytest.mark.parametrize("file", [*FILES, "signature.json"])
def test_a_file_that_was_swollen_is_refused_unread(folder: Path, file: str) -> None:
    """A sparse gigabyte takes no room on the disk, and would in memory."""
    with (folder / file).open("ab") as stream:
        stream.truncate(10**9)
    tracemalloc.start()
    refused(folder, f"{file}: expected .* bytes.*, found 1000000000; copy")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10e6


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_refused(folder: Path, file: str) -> None:
    (folder / file).unlink()
    refused(folder, file)


@pytest.mark.parametrize("file", ["notes.txt", ".hidden", "selftest/more.png", "model.onnx.data"])
def test_an_extra_file_is_refused(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"more")
    refused(folder, f"{file} was not sealed")


@pytest.mark.parametrize("name", ["more", "selftest/more"])
def test_an_extra_folder_is_refused(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    refused(folder, "a folder in a bundle")


@pytest.mark.parametrize("file", FILES)
def test_a_link_inside_is_refused_even_to_the_same_bytes(folder: Path, file: str) -> None:
    elsewhere = folder.with_name("elsewhere")
    (folder / file).rename(elsewhere)
    (folder / file).symlink_to(elsewhere)
    refused(folder, "a symbolic link")


def test_a_linked_folder_inside_is_refused(folder: Path) -> None:
    (folder / "selftest").rename(folder.with_name("elsewhere"))
    (folder / "selftest").symlink_to(folder.with_name("elsewhere"))
    refused(folder, "a symbolic link")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / "policy.json").unlink()
    os.mkfifo(folder / "policy.json")
    refused(folder, "a device or pipe")


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no such folder")
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "incomplete")


# Headers that someone wrote by hand


@pytest.mark.parametrize(
    "spelling",
    [
        lambda text: text.replace("  ", "    "),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace('"name": "tiny"', '"name": "\\u0074iny"'),
        lambda text: text.replace('"name": "tiny"', '"name": "other",\n  "name": "tiny"'),
    ],
    ids=["indent", "no newline", "crlf", "byte order mark", "escape", "duplicate key"],
)
def test_a_header_in_another_spelling_is_refused(folder: Path, spelling: Callable[[str], str]) -> None:
    header = folder / "bundle.json"
    respelt = spelling(header.read_text(encoding="utf-8"))
    header.write_bytes(respelt.encode())
    refused(folder, r"canonical JSON|Invalid JSON")


@pytest.mark.parametrize("version", ["0", "2", "4", '"3"', "3.5", "true", "null", "[]"])
def test_another_schema_version_is_refused(folder: Path, version: str) -> None:
    header = folder / "bundle.json"
    header.write_text(header.read_text().replace('"schema_version": 3', f'"schema_version": {version}'))
    refused(folder, "schema_version")


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "1", "{}", "[" * 100_000, '{"schema_version": 3}', "\udc80"]
)
def test_what_is_no_header_is_refused(folder: Path, text: str) -> None:
    (folder / "bundle.json").write_bytes(text.encode(errors="surrogateescape"))
    refused(folder, "bundle.json")


def test_a_resealed_bundle_opens_or_the_tests_below_show_nothing(folder: Path) -> None:
    before = open_bundle(folder).sha256
    reseal(folder)
    assert open_bundle(folder).sha256 == before


def test_a_name_outside_the_bundle_is_refused(folder: Path) -> None:
    outside = folder.with_name("outside.txt")
    outside.write_bytes(b"x")
    sealed = SealedFile(sha256=sha256_of(b"x"), size_bytes=1)
    for name in ("../outside.txt", str(outside), "selftest/../../outside.txt"):
        reseal(folder, lambda h, n=name: h.model_copy(update={"files": {**h.files, n: sealed}}))
        refused(folder, "missing")


def test_a_sealed_file_without_a_place_is_refused(folder: Path) -> None:
    (folder / "notes.txt").write_bytes(b"x")
    sealed = SealedFile(sha256=sha256_of(b"x"), size_bytes=1)
    reseal(folder, lambda h: h.model_copy(update={"files": {**h.files, "notes.txt": sealed}}))
    refused(folder, "does not belong in a bundle")


# Parts that belong to another bundle


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"threshold": 0.9}, "threshold"),
        ({"aggregation": "mean"}, "aggregation"),
        ({"calibrator": PlattCalibrator(slope=1.0, intercept=-9.0)}, "policy"),
        ({"deadline_hours": 48.0}, "policy"),
        ({"quality": QualityLimits(min_mean_level=0.0)}, "policy"),
    ],
)
def test_a_policy_that_was_not_certified_is_refused(
    folder: Path, change: dict[str, object], match: str
) -> None:
    (folder / "policy.json").write_text(tiny.policy(**change).to_json())
    refused(folder, "policy.json: (changed|expected)")
    reseal(folder)
    refused(folder, f"certificate was issued for {match}")


def test_a_graph_that_was_not_certified_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(tiny.GRAPH + b"\x00")
    reseal(folder)
    refused(folder, "certificate was issued for graph")


@pytest.mark.parametrize("file", ["fitted.txt", "certified.txt"])
@pytest.mark.parametrize(
    "text", ["0123456789abcdef", "0123456789abcdeg\n", "b" * 16 + "\n" + "a" * 16 + "\n", "\xe9" * 16 + "\n"]
)
def test_fingerprints_out_of_shape_or_order_are_refused(folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text)
    reseal(folder)
    refused(folder, "fingerprints")


def test_a_self_test_of_other_pictures_is_refused(folder: Path) -> None:
    cases = open_bundle(folder).selftest.cases
    for kept in (cases[:2], (), (*cases, cases[0])):
        (folder / "selftest.json").write_text(SelfTest(cases=kept).to_json())
        reseal(folder)
        refused(folder, "self-test expects")


@pytest.mark.parametrize("file", ["policy.json", "certificate.json", "selftest.json"])
def test_a_document_with_an_unknown_field_is_refused(folder: Path, file: str) -> None:
    text = (folder / file).read_text()
    (folder / file).write_text(text.replace("{\n", '{\n  "aaa": 1,\n', 1))
    reseal(folder)
    refused(folder, f"{file}: not a valid")


# Sealing


def test_an_existing_folder_is_never_overwritten(folder: Path) -> None:
    before = (folder / "bundle.json").read_bytes()
    with pytest.raises(BundleError, match="exists"):
        tiny.make(folder, threshold=0.7)
    assert (folder / "bundle.json").read_bytes() == before
    dangling = folder.with_name("dangling")
    dangling.symlink_to("nowhere")
    with pytest.raises(BundleError, match="exists"):
        tiny.make(dangling)


def test_parts_that_contradict_each_other_are_not_sealed(tmp_path: Path) -> None:
    parts = tiny.seal_arguments()
    for change in (
        {"policy": tiny.policy(threshold=0.7)},
        {"graph": b"another"},
        {"selftest_pictures": {}},
        {"selftest": SelfTest(cases=()), "selftest_pictures": {}},
    ):
        with pytest.raises(BundleError):
            seal(tmp_path / "bundle", **{**parts, **change})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../up.png", "a/b.png", ".png", "UPPER.png", "photo.jpeg", ""])
def test_a_picture_name_that_could_lead_elsewhere_is_not_sealed(tmp_path: Path, name: str) -> None:
    parts = tiny.seal_arguments()
    case = parts["selftest"].cases[0]
    parts["selftest"] = SelfTest(cases=(case.model_copy(update={"file": name}),))
    parts["selftest_pictures"] = {name: b"x"}
    with pytest.raises(BundleError, match="expected a name"):
        seal(tmp_path / "bundle", **parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("epoch", ["yesterday", "1.5", str(10**30)])
def test_a_date_that_is_none_is_not_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(BundleError, match="SOURCE_DATE_EPOCH"):
        seal(tmp_path / "bundle", **{**tiny.seal_arguments(), "created_at": None})
    with pytest.raises(BundleError, match="time zone"):
        seal(tmp_path / "bundle", **{**tiny.seal_arguments(), "created_at": datetime(2025, 1, 1)})


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError, match="could not be written"):
        tiny.make(tmp_path / "file" / "bundle")


# Each file opened, each file and at last the folder renamed is a step; at step 0 nobody dies.
KILLED_AT_A_STEP = """
import os, signal, sys
from pathlib import Path
import tiny_bundle
folder, last_step, steps = Path(sys.argv[1]), int(sys.argv[2]), 0
parts = tiny_bundle.seal_arguments()
def watch(event, arguments):
    global steps
    if event not in ("open", "os.mkdir", "os.rename") or folder.exists():
        return
    if str(folder) in str(arguments[0]).replace("/.", "/"):
        steps += 1
        if steps == last_step:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
tiny_bundle.seal(folder, **parts)
print(steps)
"""


@pytest.mark.parametrize("mode", [0o311, 0o644])
def test_folder_that_may_not_be_read_is_refused_with_the_reason(
    tmp_path: Path, mode: int, ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    folder = tiny.make(tmp_path / "bundle").folder
    folder.chmod(mode)
    try:
        with ordinary_user(), pytest.raises(BundleError, match=r"cannot be listed \(Permission denied"):
            open_bundle(folder)
    finally:
        folder.chmod(0o755)


def seal_and_die(folder: Path, step: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", KILLED_AT_A_STEP, str(folder), str(step)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_while_sealing_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    last = int(seal_and_die(tmp_path / "undisturbed", 0).stdout)
    folder = tmp_path / "bundle"
    for step in (1, last // 3, last // 2, last - 1, last):
        died = seal_and_die(folder, step)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert not folder.exists(), f"killed at step {step}"
    assert tiny.make(folder).sha256 == open_bundle(tmp_path / "undisturbed").sha256


def test_certificate_names_itself_by_its_content() -> None:
    one = tiny.certificate_for(tiny.policy())
    same = Certificate.model_validate_json(one.to_json())
    other = tiny.certificate_for(tiny.policy(threshold=0.6))
    assert one.certificate_id() == same.certificate_id() != other.certificate_id()
