from __future__ import annotations

import io
import math
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lesion_triage.data import picture_files
from lesion_triage.errors import DataError


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """An HDF5 file of forty small entries."""
    path = tmp_path / "pictures.hdf5"
    with h5py.File(path, "w") as file:
        for number in range(40):
            file[f"ISIC_{number}"] = np.void(f"picture {number}".encode())
    return path


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 9))
def test_a_png_of_ours_is_read_by_others_without_loss(width: int, height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(picture_files.encode_png(pixels))) as read:
        read.load()
        assert read.mode == "RGB"
        assert np.array_equal(np.asarray(read), pixels)


def test_a_png_of_ours_is_stored_so_that_no_compressor_decides_its_bytes() -> None:
    raw = 200 * (1 + 3 * 300)  # rows of a filter byte and 300 pixels
    stored = 2 + raw + 5 * math.ceil(raw / 65535) + 4  # RFC 1950 and 1951: header, blocks of type 0, Adler-32
    assert (
        len(picture_files.encode_png(np.ones((200, 300, 3), np.uint8))) == 8 + (12 + 13) + (12 + stored) + 12
    )


def test_a_hash_in_a_file_s_own_name_is_no_locator(tmp_path: Path) -> None:
    (tmp_path / "mole#1.jpg").write_bytes(b"bytes")
    assert picture_files.read_bytes(tmp_path, "mole#1.jpg") == b"bytes"


@pytest.mark.parametrize("path", ["../a.jpg", "/etc/passwd", "x/../../a.hdf5#b", "/x.npz#a/0"])
def test_a_path_outside_the_root_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="leaves the data root"):
        picture_files.read_bytes(tmp_path, path)


def test_a_part_of_a_mixture_has_a_root_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(b"a")
    roots = {"clinic": tmp_path / "elsewhere", "ham10000": tmp_path}
    assert picture_files.read_bytes(roots, "clinic/a.jpg") == b"a"
    with pytest.raises(DataError, match=r"names no part of the mixture; known: clinic, ham10000"):
        picture_files.read_bytes(roots, "ddi/a.jpg")


@pytest.mark.parametrize("path", ["none.hdf5#a", "pictures.hdf5#ISIC_99", "none.npz#a/0", "none.jpg"])
def test_what_is_not_there_is_a_file_not_found(container: Path, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        picture_files.read_bytes(container.parent, path)


@pytest.mark.parametrize("inner", ["a/9", "a/x", "a/", "b/0"])
def test_a_place_that_an_array_lacks_cannot_be_read(tmp_path: Path, inner: str) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((2, 3, 3, 3), np.uint8))
    with pytest.raises(OSError, match=r"x\.npz"):
        picture_files.read_bytes(tmp_path, f"x.npz#{inner}")


def test_a_pickle_inside_an_npz_file_is_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(OSError, match="Object arrays cannot be loaded"):
        picture_files.read_bytes(tmp_path, "x.npz#a/0")


def test_a_file_that_was_replaced_is_read_anew(container: Path) -> None:
    assert picture_files.read_bytes(container.parent, "pictures.hdf5#ISIC_3") == b"picture 3"
    container.unlink()
    with h5py.File(container, "w") as file:
        file["ISIC_3"] = np.void(b"another picture")
    assert picture_files.read_bytes(container.parent, "pictures.hdf5#ISIC_3") == b"another picture"


def test_many_threads_read_one_container(container: Path) -> None:
    names = [f"pictures.hdf5#ISIC_{number % 40}" for number in range(400)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: picture_files.read_bytes(container.parent, name), names))
    assert found == [f"picture {number % 40}".encode() for number in range(400)]


def _read_in_child(root: str, queue: multiprocessing.Queue[bytes]) -> None:
    queue.put(picture_files.read_bytes(Path(root), "pictures.hdf5#ISIC_7"))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_a_container_that_its_parent_has_open(container: Path) -> None:
    picture_files.read_bytes(container.parent, "pictures.hdf5#ISIC_7")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(str(container.parent), queue))
    child.start()
    assert queue.get(timeout=60) == b"picture 7"
    child.join(60)
    assert child.exitcode == 0
