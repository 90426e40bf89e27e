"""An archive from the web is unpacked inside its folder or not at all."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from lesion_triage.data.catalogue.unpack import unpack
from lesion_triage.errors import DownloadError


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_every_file_comes_out_as_it_went_in(tmp_path, name):
    members = {"images/1.png": b"one" * 1000, "images/deeper/2.png": b"two", "table.csv": b"a,b\n"}
    if name == "a.zip":
        zipped(tmp_path / name, members)
    else:
        with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as tape:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tape.addfile(info, io.BytesIO(content))
    assert unpack(tmp_path / name, tmp_path / "out") == 3
    assert files_below(tmp_path / "out") == members


def test_a_folder_that_only_repeats_the_archives_name_is_not_doubled(tmp_path):
    archive = zipped(tmp_path / "Training_Input.zip", {"Training_Input/1.jpg": b"one"})
    unpack(archive, tmp_path / "Training_Input")
    assert files_below(tmp_path / "Training_Input") == {"1.jpg": b"one"}


def test_archives_inside_are_unpacked_where_they_lie(tmp_path):
    inner = zipped(tmp_path / "imgs_part_1.zip", {"1.png": b"one", "2.png": b"two"})
    outer = zipped(tmp_path / "a.zip", {"metadata.csv": b"x", "images/imgs_part_1.zip": inner.read_bytes()})
    assert unpack(outer, tmp_path / "out") == 3
    assert files_below(tmp_path / "out").keys() == {
        "metadata.csv",
        "images/imgs_part_1.zip",
        "images/imgs_part_1/1.png",
        "images/imgs_part_1/2.png",
    }


def test_a_second_time_writes_what_is_missing_and_nothing_else(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"1.png": b"one", "2.png": b"two"})
    unpack(archive, tmp_path / "out")
    (tmp_path / "out" / "2.png").write_bytes(b"t")
    before = (tmp_path / "out" / "1.png").stat().st_mtime_ns
    assert unpack(archive, tmp_path / "out") == 2
    assert files_below(tmp_path / "out") == {"1.png": b"one", "2.png": b"two"}
    assert (tmp_path / "out" / "1.png").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "name",
    [
        "../out.png",
        "/out.png",
        "images/../../out.png",
        "..\\out.png",
        "C:/out.png",
        "images/../../../x/out.png",
    ],
)
def test_a_member_cannot_leave_the_folder(tmp_path, name):
    archive = zipped(tmp_path / "a.zip", {"first.png": b"one", name: b"evil"})
    with pytest.raises(DownloadError, match="would land outside its folder"):
        unpack(archive, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("*out.png*"))


def test_a_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DownloadError, match="'link' is a link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert files_below(tmp_path / "out") == {}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("odd")
    info.type, info.linkname = kind, "../../etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as tape:
        tape.addfile(info)
    with pytest.raises(DownloadError, match="'odd' is a link or a device"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_a_link_that_lay_there_before_is_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DownloadError, match="through a link"):
        unpack(zipped(tmp_path / "a.zip", {"images/1.png": b"one"}), tmp_path / "out")
    assert files_below(tmp_path / "elsewhere") == {}


def test_a_bomb_is_not_unpacked(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"zeros": bytes(200 << 20)})
    assert archive.stat().st_size < 1 << 20
    with pytest.raises(DownloadError, match="that is no dataset"):
        unpack(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == {}


def test_many_small_bombs_in_one_archive_are_one_bomb(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"zeros": bytes(40 << 20)}).read_bytes()
    archive = zipped(tmp_path / "a.zip", {f"{number}.zip": inner for number in range(3)})
    with pytest.raises(DownloadError, match="that is no dataset"):
        unpack(archive, tmp_path / "out")
    assert sum(len(content) for content in files_below(tmp_path / "out").values()) < 64 << 20


def test_a_member_that_lies_about_its_size_is_not_written_out(tmp_path):
    """The central directory says 10 bytes, the member holds 200 MB."""
    archive = zipped(tmp_path / "a.zip", {"zeros": bytes(200 << 20)})
    said = archive.read_bytes()
    archive.write_bytes(said.replace((200 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(DownloadError):
        unpack(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("damage", "compression"),
    [
        (lambda said: said[: len(said) // 2], zipfile.ZIP_DEFLATED),
        (lambda said: b"no archive", zipfile.ZIP_DEFLATED),
        (lambda said: said[:45] + bytes(9) + said[54:], zipfile.ZIP_LZMA),
        (lambda said: said.replace("ü".encode(), b"\xff\xff"), zipfile.ZIP_DEFLATED),
    ],
)
def test_a_damaged_archive_is_named(tmp_path, damage, compression):
    archive = zipped(tmp_path / "a.zip", {"ü.png": b"one" * 1000}, compression)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DownloadError, match=r"a\.zip: cannot be unpacked .*fetch it again"):
        unpack(archive, tmp_path / "out")


def test_a_flipped_byte_is_found_by_the_archives_own_checksum(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"1.png": b"picture" * 1000}, zipfile.ZIP_STORED)
    said = bytearray(archive.read_bytes())
    said[1000] ^= 1
    archive.write_bytes(said)
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == {}
