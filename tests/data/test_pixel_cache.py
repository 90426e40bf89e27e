from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import features
from torch.utils.data import DataLoader

from lesion_triage.bundle import pixels
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.data import pixel_cache
from lesion_triage.data.augment import augmentation
from lesion_triage.data.dataset import DistributedBatchSampler, TrainingPictures
from lesion_triage.data.manifest import Manifest, read
from lesion_triage.data.records import Record
from lesion_triage.errors import DataError, ManifestError

SPEC = PixelSpec(size_px=32)

FILL = """
import sys
from pathlib import Path
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.data import manifest, pixel_cache

pixel_cache.BLOCK = int(sys.argv[2])
folder = Path(sys.argv[1])
known, _ = manifest.read(folder / "manifest")
def tick(done, total):
    if done == int(sys.argv[3]):
        print(done, flush=True)
        sys.stdin.readline()
pixel_cache.load_pixels(known.records, folder / "pictures", PixelSpec(size_px=32), folder / "cache", tick)
"""


@pytest.fixture
def workspace(tmp_path: Path, picture: Callable[..., None]) -> Path:
    """A folder with a manifest of 40 pictures and the pictures."""
    records = []
    for number in range(40):
        name = f"{number:02}.png"
        picture(tmp_path / "pictures" / name, number, (48, 40))
        records.append(
            Record(
                image_id=name,
                path=name,
                lesion_id=name,
                needs_in_person=number % 2 == 0,
                source="clinic",
                sha256=sha256_of((tmp_path / "pictures" / name).read_bytes()),
                width_px=48,
                height_px=40,
            )
        )
    Manifest(records=tuple(records), source="folder", synthetic=False).write(tmp_path / "manifest")
    return tmp_path


def records_of(workspace: Path) -> tuple[Record, ...]:
    return read(workspace / "manifest")[0].records


def fill_cache(workspace: Path, spec: PixelSpec = SPEC) -> pixel_cache.Pixels:
    return pixel_cache.load_pixels(records_of(workspace), workspace / "pictures", spec, workspace / "cache")


def expected(workspace: Path) -> np.ndarray:
    """Straight from the pixel path, without any of the code under test."""
    files = [workspace / "pictures" / record.path for record in records_of(workspace)]
    return np.stack([pixels.decode(path.read_bytes(), SPEC).pixels for path in files])


def start_filling(workspace: Path, block: int, stop_at: int) -> subprocess.Popen[str]:
    """A process that fills the cache and waits for a line once it has done ``stop_at`` pictures."""
    words = [sys.executable, "-c", FILL, str(workspace), str(block), str(stop_at)]
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def cache_files(workspace: Path) -> list[str]:
    return sorted(path.suffix for path in (workspace / "cache").iterdir())


def test_the_cache_holds_what_the_pixel_path_gives(workspace: Path) -> None:
    np.testing.assert_array_equal(np.asarray(fill_cache(workspace)), expected(workspace))
    assert cache_files(workspace) == [".npy"]


def test_a_second_opening_reads_no_picture(workspace: Path) -> None:
    fill_cache(workspace)
    for path in (workspace / "pictures").iterdir():
        path.unlink()
    np.testing.assert_array_equal(len(fill_cache(workspace)), 40)


def test_progress_counts_every_picture(workspace: Path) -> None:
    seen: list[tuple[int, int]] = []
    pixel_cache.load_pixels(
        records_of(workspace),
        workspace / "pictures",
        SPEC,
        workspace / "cache",
        lambda *step: seen.append(step),
    )
    assert seen == [(number, 40) for number in range(1, 41)]


def test_training_sees_the_same_batches_with_and_without_the_cache(workspace: Path) -> None:
    def batches(cache: Path | None, workers: int) -> list[torch.Tensor]:
        prepared = pixel_cache.load_pixels(records_of(workspace), workspace / "pictures", SPEC, cache)
        dataset = TrainingPictures(prepared, [True] * 40, [0] * 40, augmentation("standard", 32), 3, 1)
        order = DistributedBatchSampler(40, 8, 3, 1)
        return [batch.pixels for batch in DataLoader(dataset, batch_sampler=order, num_workers=workers)]

    with_cache, without = batches(workspace / "cache", 0), batches(None, 0)
    assert len(with_cache) == 5
    for one, other in zip(with_cache, without, strict=True):
        assert torch.equal(one, other)
    slices = [
        pixel_cache.load_pixels(records_of(workspace), workspace / "pictures", SPEC, cache)[8:20]
        for cache in (workspace / "cache", None)
    ]
    np.testing.assert_array_equal(*slices)


def test_a_loader_process_maps_the_file_itself_however_it_is_started(workspace: Path) -> None:
    """Where processes are spawned, as on macOS, the dataset is pickled: each got a copy of all pictures."""
    dataset = TrainingPictures(fill_cache(workspace), [True] * 40, [0] * 40, augmentation("none", 32), 3, 1)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 40 * 32 * 32 * 3 / 10
    again = pickle.loads(pickled)
    np.testing.assert_array_equal([again[place].pixels for place in range(40)], expected(workspace))
    (workspace / "cache").rename(workspace / "elsewhere")
    with pytest.raises(DataError, match="all machines of a training run need the folder"):
        pickle.loads(pickled)


def test_another_specification_order_or_file_is_another_key(workspace: Path) -> None:
    known = records_of(workspace)
    keys = {
        pixel_cache.cache_key(known, SPEC),
        pixel_cache.cache_key(known, PixelSpec(size_px=64)),
        pixel_cache.cache_key(known[::-1], SPEC),
        pixel_cache.cache_key(known[1:], SPEC),
    }
    assert len(keys) == 4
    assert pixel_cache.cache_key(known, SPEC) in keys


def test_another_pixel_path_is_another_key(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pixel_cache.cache_key(records_of(workspace), SPEC)
    monkeypatch.setattr(pixels._Jpeg, "draft", lambda *_: None)  # as if decoded at full scale from now on
    assert pixel_cache.cache_key(records_of(workspace), SPEC) != before


@pytest.mark.parametrize("library", ["jpg", "libjpeg_turbo", "webp", "littlecms2"])
def test_another_version_of_any_decoder_is_another_key(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    before, here = pixel_cache.cache_key(records_of(workspace), SPEC), features.version
    monkeypatch.setattr(features, "version", lambda name: "99" if name == library else here(name))
    assert pixel_cache.cache_key(records_of(workspace), SPEC) != before


@pytest.mark.parametrize("stop_at", [1, 8, 9, 39])
def test_a_kill_in_the_middle_costs_at_most_a_block(workspace: Path, stop_at: int) -> None:
    running = start_filling(workspace, 8, stop_at)
    assert running.stdout is not None
    assert running.stdout.readline().strip() == str(stop_at)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert cache_files(workspace) == [".blocks", ".part"]
    whole_blocks = stop_at // 8 * 8 if stop_at % 8 else stop_at - 8  # the eighth is reported before its line
    for record in records_of(workspace)[:whole_blocks]:
        (workspace / "pictures" / record.path).unlink()  # so that decoding it again would fail
    again = start_filling(workspace, 8, -1)
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert cache_files(workspace) == [".npy"]
    rest = np.asarray(fill_cache(workspace))
    for place, record in enumerate(records_of(workspace)):
        path = workspace / "pictures" / record.path
        if path.exists():
            np.testing.assert_array_equal(rest[place], pixels.decode(path.read_bytes(), SPEC).pixels)
    assert len({rest[place].tobytes() for place in range(40)}) == 40


def test_a_resumed_file_has_the_same_bytes(workspace: Path) -> None:
    fill_cache(workspace)
    path = next((workspace / "cache").glob("*.npy"))
    whole = path.read_bytes()
    path.unlink()
    running = start_filling(workspace, 8, 21)
    assert running.stdout is not None
    running.stdout.readline()
    running.kill()
    running.communicate()
    start_filling(workspace, 8, -1).communicate()
    assert path.read_bytes() == whole


def test_a_damaged_block_is_decoded_again(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start_filling(workspace, 8, 30)
    assert running.stdout is not None
    running.stdout.readline()
    running.kill()
    running.communicate()
    part = next((workspace / "cache").glob("*.part"))
    with part.open("r+b") as stream:
        stream.seek(128 + 9 * 32 * 32 * 3)
        stream.write(b"power loss")
    monkeypatch.setattr(pixel_cache, "BLOCK", 8)
    np.testing.assert_array_equal(np.asarray(fill_cache(workspace)), expected(workspace))


def test_two_processes_share_one_file_and_decode_once(workspace: Path) -> None:
    first = start_filling(workspace, 8, 20)
    assert first.stdout is not None
    first.stdout.readline()
    second = start_filling(workspace, 8, 1)  # would stop at its first picture, if it decoded any
    assert second.stdout is not None
    assert "waiting for it" in second.stdout.readline()
    first.communicate("go on\n")
    said, complaint = second.communicate(timeout=60)
    assert second.returncode == 0, complaint
    assert said == ""
    np.testing.assert_array_equal(np.asarray(fill_cache(workspace)), expected(workspace))


def test_a_full_disk_is_explained_and_given_back(workspace: Path) -> None:
    # 40 pictures take 122,880 bytes.
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n{FILL}"
    done = subprocess.run(
        [sys.executable, "-c", limited, str(workspace), "8", "-1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "DataError" in done.stderr
    assert "takes 0.00 GB and could not be written" in done.stderr
    assert "train.pixel_cache" in done.stderr
    assert cache_files(workspace) == []
    np.testing.assert_array_equal(np.asarray(fill_cache(workspace)), expected(workspace))


def test_a_folder_that_cannot_be_written_is_explained(workspace: Path) -> None:
    (workspace / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(DataError, match="could not be written"):
        fill_cache(workspace)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"no array" * 20])
def test_a_whole_name_with_half_a_file_is_made_anew(
    workspace: Path, damage: Callable[[bytes], bytes]
) -> None:
    fill_cache(workspace)
    path = next((workspace / "cache").glob("*.npy"))
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(np.asarray(fill_cache(workspace)), expected(workspace))


@pytest.mark.parametrize("cache", [True, False])
def test_a_picture_changed_since_the_manifest_is_refused(workspace: Path, cache: bool) -> None:
    (workspace / "pictures" / "07.png").write_bytes((workspace / "pictures" / "08.png").read_bytes())
    with pytest.raises(ManifestError, match="changed since the manifest was built"):
        pixel_cache.load_pixels(
            records_of(workspace), workspace / "pictures", SPEC, workspace / "cache" if cache else None
        )[7]


def test_a_picture_that_cannot_be_decoded_is_named(workspace: Path) -> None:
    known = list(records_of(workspace))
    os.truncate(workspace / "pictures" / "07.png", 300)
    broken = (workspace / "pictures" / "07.png").read_bytes()
    known[7] = Record(
        **{name: getattr(known[7], name) for name in Record.__dataclass_fields__ if name != "sha256"},
        sha256=sha256_of(broken),
    )
    with pytest.raises(DataError, match=sha256_of(broken)[:12]):
        pixel_cache.load_pixels(known, workspace / "pictures", SPEC, workspace / "cache")
