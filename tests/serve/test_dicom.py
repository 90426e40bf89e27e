from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate

from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import Answer, PixelSpec
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.errors import ImageError
from sent_cases import dicom
from triage_server.dicom import photograph
from triage_server.problems import RequestError

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]
DICOM = {"Content-Type": "application/dicom"}
SPEC = PixelSpec(size_px=32, max_pixels=1_000_000)


def array(width_px: int = 161, height_px: int = 121) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def refused(data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        photograph(data, SPEC, 0)
    return caught.value


def came_out(data: bytes) -> bytes | str:
    """The picture, or the code of the refusal."""
    try:
        return photograph(data, SPEC, 0)
    except RequestError as refusal:
        return refusal.code


@pytest.mark.parametrize("kind", ["1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.5.1.4.1.1.77.1.7"])
def test_a_jpeg_leaves_its_dicom_file_byte_for_byte(kind: str, draw: Any):
    picture = draw()
    assert photograph(dicom(picture, SOPClassUID=kind), SPEC, 0).rstrip(b"\0") == picture.rstrip(b"\0")


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_uncompressed_colours_leave_without_loss(planar: bool, syntax: str):
    levels = array()
    sent = dicom(levels, TransferSyntaxUID=syntax)
    if planar:
        planes = levels.transpose(2, 0, 1).tobytes() + b"\0"
        sent = dicom(levels, TransferSyntaxUID=syntax, PlanarConfiguration=1, PixelData=planes)
    with Image.open(io.BytesIO(photograph(sent, SPEC, 0))) as image:
        assert np.array_equal(np.asarray(image), levels)


def test_score_is_that_of_the_picture_inside_to_the_last_bit(
    ask: Ask, make_app: MakeApp, draw: Any, scorer: Scorer
):
    jpeg, app = draw(), make_app()
    png = io.BytesIO()
    Image.fromarray(array(160, 120)).save(png, "PNG")
    for sent, plain in ((dicom(jpeg), jpeg), (dicom(array(160, 120)), png.getvalue())):
        raw = ask(app, "POST", "/v1/triage", content=sent, headers=DICOM)
        form = ask(app, "POST", "/v1/triage", files=[("image", ("x.dcm", sent, "application/dicom"))])
        assert form.content == raw.content
        assert Answer.model_validate_json(raw.content) == scorer.score([plain])


UNSUPPORTED = {
    "another class": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "Secondary Capture Image Storage"),
    "a class of its own": ({"SOPClassUID": "1.2.3.4.5"}, "not known"),
    "JPEG 2000": ({"TransferSyntaxUID": "1.2.840.10008.1.2.4.90"}, "JPEG 2000"),
    "lossless JPEG": ({"TransferSyntaxUID": "1.2.840.10008.1.2.4.70"}, "JPEG Lossless"),
    "deflated": ({"TransferSyntaxUID": "1.2.840.10008.1.2.1.99"}, "Deflated"),
    "several frames": ({"NumberOfFrames": 2}, "several frames"),
    "several in an extended table": ({"ExtendedOffsetTable": bytes(16)}, "several frames"),
    "one channel": ({"SamplesPerPixel": 1}, "another pixel format"),
    "16 bits": ({"BitsAllocated": 16}, "another pixel format"),
    "7 of 8 bits": ({"BitsStored": 7, "HighBit": 6}, "another pixel format"),
    "bits at another place": ({"HighBit": 6}, "another pixel format"),
    "signed": ({"PixelRepresentation": 1}, "another pixel format"),
    "other colours": ({"PhotometricInterpretation": "RGB"}, "not YBR"),
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_is_not_read_is_refused_by_its_name(what: str, draw: Any):
    changes, name = UNSUPPORTED[what]
    refusal = refused(dicom(draw(), **changes))
    assert refusal.code == "dicom_not_supported"
    assert name in str(refusal)
    assert "1.2.3" not in str(refusal)


def test_a_second_transfer_syntax_behind_the_first_inflates_nothing(draw: Any):
    """pydicom goes by the last one, and inflates without limit: 100 KB took 200 MB."""
    whole = dicom(draw())
    end = 144 + int.from_bytes(whole[140:144], "little")
    second = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", 22) + b"1.2.840.10008.1.2.1.99"
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(whole[end:]) + deflater.flush()
    for behind in (deflated, whole[end:]):
        assert refused(whole[:end] + second + behind).code == "dicom_not_valid"


@pytest.mark.parametrize("said", [{}, {"NumberOfFrames": 1}], ids=["unsaid", "said to be one"])
@pytest.mark.parametrize("table", [True, False], ids=["table", "no table"])
@pytest.mark.parametrize("fragments", [1, 3])
def test_a_second_frame_is_found_whatever_the_file_says(
    fragments: int, table: bool, said: dict[str, int], draw: Any
):
    frames = [draw(), draw(seed=1)]
    pixels = encapsulate(frames, fragments_per_frame=fragments, has_bot=table)
    refusal = refused(dicom(frames[0], PixelData=pixels, **said))
    assert (refusal.code, "several frames" in str(refusal)) == ("dicom_not_supported", True)


def test_a_second_picture_in_the_only_frame_is_found(draw: Any):
    first, second = draw(), draw(seed=1)
    for both in (first + second, first + b"\0\0" + second, first[:-2] + second):
        refusal = refused(dicom(first, PixelData=encapsulate([both])))
        assert (refusal.code, "several frames" in str(refusal)) == ("dicom_not_supported", True)


@pytest.mark.parametrize("table", [True, False], ids=["table", "no table"])
def test_a_picture_in_fragments_and_the_small_one_inside_it_are_one_picture(table: bool, draw: Any):
    picture = draw()
    preview = b"Exif\0\0" + draw(32, 24)
    whole = picture[:2] + b"\xff\xe1" + struct.pack(">H", len(preview) + 2) + preview + picture[2:]
    sent = dicom(picture, PixelData=encapsulate([whole], fragments_per_frame=3, has_bot=table))
    assert photograph(sent, SPEC, 0).rstrip(b"\0") == whole.rstrip(b"\0")


@pytest.mark.parametrize("said", [{"Rows": 10}, {"Columns": 10}, {"Rows": 10, "Columns": 10}], ids=str)
def test_a_jpeg_of_another_size_than_its_file_says_is_refused(said: dict[str, int], draw: Any):
    assert refused(dicom(draw(), **said)).code == "dicom_not_valid"


def test_a_grey_jpeg_in_a_file_of_colours_is_refused(draw: Any):
    stream = io.BytesIO()
    Image.open(io.BytesIO(draw())).convert("L").save(stream, "JPEG")
    assert refused(dicom(stream.getvalue())).code == "dicom_not_valid"


def test_a_jpeg_of_a_million_segments_or_fill_bytes_is_given_up(draw: Any):
    picture = draw()
    many = picture[:2] + b"\xff\xfe\0\2" * 1_000_000 + picture[2:]
    assert refused(dicom(picture, PixelData=encapsulate([many]))).code == "dicom_not_valid"
    filled = picture[:2] + b"\xff" * 1_000_000 + picture[2:]
    assert isinstance(came_out(dicom(picture, PixelData=encapsulate([filled]))), bytes)


def test_uncompressed_colours_other_than_rgb_are_refused():
    assert refused(dicom(array(), PhotometricInterpretation="YBR_FULL")).code == "dicom_not_supported"


def test_pixels_are_capped_before_they_are_read():
    assert refused(dicom(array(), Rows=60_000, Columns=60_000)).code == "image_too_large"
    assert refused(dicom(array(), Rows=60_000, Columns=0)).code == "dicom_not_valid"
    assert refused(dicom(array(), Rows=7)).code == "dicom_not_valid"


def test_jpeg_inside_is_held_to_the_limits_of_any_jpeg(ask: Ask, make_app: MakeApp, draw: Any):
    small = dicom(draw()[:2000])
    response = ask(make_app(), "POST", "/v1/triage", content=small, headers=DICOM)
    assert (response.status_code, response.json()["code"]) == (422, "image_not_decodable")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_off_is_refused(share: float, draw: Any):
    for whole in (dicom(draw()), dicom(array())):
        found = came_out(whole[: 132 + int((len(whole) - 132) * share)])
        if isinstance(found, bytes):  # a JPEG that lost its end is found by the pixel path
            with pytest.raises(ImageError, match="cannot be decoded"):
                decode(found, SPEC)
        else:
            assert found in ("dicom_not_valid", "dicom_not_supported")


def test_two_files_in_one_are_refused(draw: Any):
    for first in (draw(kind="JPEG"), draw(kind="PNG"), draw(kind="WEBP")):
        inner = dicom(draw())
        assert refused(first[:128] + inner[128:]).code == "dicom_not_valid"


def _elements(count: int) -> bytes:
    """Comments of no length, 8 bytes each."""
    return struct.pack("<HH2sH", 0x0018, 0x4000, b"LT", 0) * count


def test_a_file_of_a_million_elements_or_fragments_is_given_up(draw: Any):
    whole = dicom(draw())
    place = whole.index(struct.pack("<HH", 0x0028, 0x0002))
    assert refused(whole[:place] + _elements(1_000_000) + whole[place:]).code == "dicom_not_valid"
    fragments = b"\xfe\xff\x00\xe0\0\0\0\0" * 100_000
    assert refused(dicom(draw(), PixelData=fragments + b"\xfe\xff\xdd\xe0\0\0\0\0")).code == "dicom_not_valid"


def test_deep_sequences_are_given_up(draw: Any):
    whole = dicom(draw())
    place = whole.index(struct.pack("<HH", 0x0028, 0x0002))
    nest = (
        struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    ) * 5000
    assert refused(whole[:place] + nest + whole[place:]).code == "dicom_not_valid"


def test_every_flipped_byte_of_the_head_is_a_picture_or_a_refusal(draw: Any):
    whole = dicom(draw(32, 24))
    for place in range(128, 700):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0xFF
        found = came_out(bytes(spoilt))
        assert isinstance(found, bytes) or found.startswith(("dicom_", "image_too_large"))


def test_without_the_reader_the_server_starts_and_says_that_it_reads_none(draw: Any):
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from triage_server.dicom import photograph\n"
        "from triage_server.cli import main\n"
        "from lesion_triage.bundle.schema import PixelSpec\n"
        "spec = PixelSpec(size_px=32)\n"
        "assert photograph(b'x' * 200, spec, 0) == b'x' * 200\n"
        "try: photograph(bytes(128) + b'DICM', spec, 0)\n"
        "except Exception as error: print(error.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "dicom_not_available"
