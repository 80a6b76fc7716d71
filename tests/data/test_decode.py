"""Decoding: sizes, and images as people have them, which are converted or refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cembench.data import datasets
from cembench.data.files.decode import Decoder
from cembench.util.errors import CembenchError

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def saved(image, kind="png", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(depth, colour, width, height, pixels=b""):
    """A PNG file by hand: Pillow writes neither 16-bit colour nor sizes that it does not hold."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


SIXTEEN = b"\0" + bytes(4 * 6)  # a row of four pixels in colour
TURNED = Image.Exif()
TURNED[0x0112] = 6  # by a quarter
FRAMES = {"save_all": True, "append_images": [NOISE.rotate(180)]}
CLEAR = NOISE.convert("RGBA")
CLEAR.putalpha(0)


CONVERTED = {
    "cmyk": (saved(NOISE.convert("CMYK"), "tiff"), NOISE),
    "palette": (saved(NOISE.quantize(16), transparency=bytes(16)), NOISE.quantize(16)),
    "transparent": (saved(CLEAR), NOISE),
    "grey-alpha": (saved(NOISE.convert("LA")), NOISE.convert("L")),
    "bits": (saved(NOISE.convert("1")), NOISE.convert("1")),
    "apng": (saved(NOISE, **FRAMES), NOISE),
    "webp": (saved(NOISE, "webp", lossless=True, **FRAMES), NOISE),
    "gif": (saved(NOISE.quantize(16), "gif", **FRAMES), NOISE.quantize(16)),
    "exif": (saved(NOISE, exif=TURNED), NOISE),
    "bmp": (saved(NOISE, "bmp"), NOISE),
}
REFUSED = {
    "empty": (b"", "not a readable image"),
    "text": (b"text", "not a readable image"),
    "cut-jpeg": (saved(NOISE, "jpeg")[:-200], "not a readable image"),
    "cut-png": (saved(NOISE)[:-200], "not a readable image"),
    "zero": (png(8, 2, 0, 0), "not a readable image"),
    "grey16": (saved(Image.new("I;16", (4, 4))), "more than 8 bits a channel"),
    "colour16": (png(16, 2, 4, 4, SIXTEEN * 4), "more than 8 bits a channel"),
    "float": (saved(Image.new("F", (4, 4)), "tiff"), "more than 8 bits a channel"),
    "huge": (png(8, 2, 20_000, 20_000), "more than 67,108,864 pixels"),
    "large": (png(8, 2, 8_200, 8_200), "8200×8200, more than 67,108,864 pixels"),
    "long": (saved(Image.new("L", (30_000, 1))), "shorter side of 256, has 7680000×256"),
}


@pytest.mark.parametrize(("content", "same_as"), CONVERTED.values(), ids=CONVERTED)
@pytest.mark.filterwarnings("error")
def test_images_are_converted_without_transparency_further_frames_and_orientation(content, same_as):
    for mode in ("RGB", "L"):
        found = Decoder(mode).decode(content, "a.png")
        expected = np.asarray(same_as.convert(mode))
        assert np.array_equal(found, expected[None] if mode == "L" else expected.transpose(2, 0, 1))


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("error:::PIL")
def test_images_that_mean_nothing_are_refused_by_name(content, message):
    with pytest.raises(CembenchError, match=message) as error:
        Decoder("RGB", resize=256).decode(content, "some/a.png")
    assert str(error.value).startswith("some/a.png") and "\n" not in str(error.value)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_shorter_side_is_scaled_and_the_centre_is_cut(interpolation):
    found = Decoder("RGB", 10, 8, interpolation).decode(saved(NOISE), "a.png")
    scaled = NOISE.resize((15, 10), Image.Resampling[interpolation.upper()])
    assert np.array_equal(found, np.asarray(scaled)[1:9, 3:11].transpose(2, 0, 1))
    assert np.ptp(Decoder("L", 2, 2).decode(saved(NOISE), "a.png").astype(int)) < 60  # antialiased
    with pytest.raises(CembenchError, match=r"30×20 pixels, fewer than data\.centre_crop=25"):
        Decoder("RGB", None, 25).decode(saved(NOISE), "a.png")


def test_size_is_resize_and_centre_crop_of_one_number(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "1.png").write_bytes(saved(NOISE.rotate(ord(name))))
    own = {"name": "folder", "root": str(tmp_path)}

    def print_of(**keys):
        return datasets.parse(own | keys).load("train").fingerprint

    assert print_of(size=8) == print_of(resize=8, centre_crop=8) == print_of(size=8, resize=None)
    assert len({print_of(), print_of(size=8), print_of(resize=9, centre_crop=8)}) == 3
    assert print_of(size=8) != print_of(size=8, interpolation="bilinear")
    assert "resize" not in datasets.parse(own | {"size": 8}).dump()  # digests of runs stay
    for wrong in ({"size": 8, "resize": 9}, {"resize": 7, "centre_crop": 8}):
        with pytest.raises(CembenchError, match="resize"):
            datasets.parse(own | wrong)
