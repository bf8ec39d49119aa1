"""Bad and odd image files, made by code, with what each is meant to give."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# A gradient that tells every corner from every other: red grows to the right, green downwards, blue is 64.
_Y, _X = np.mgrid[0:48, 0:64]
PIXELS = np.stack([_X * 4, _Y * 5, 0 * _X + 64], axis=-1).astype(np.uint8)       # (48, 64, 3)
PICTURE = Image.fromarray(PIXELS)


def encode(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes, crc: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ crc)


def png(width: int, height: int, rows: bytes, bits: int = 8, colour: int = 0, extra: bytes = b"", header_crc: int = 0,
        data_crc: int = 0, interlace: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header, header_crc) + extra
            + chunk(b"IDAT", zlib.compress(rows), data_crc) + chunk(b"IEND", b""))


def tiff(entries: dict[int, tuple[int, int]], following: int = 0) -> bytes:
    """A little-endian TIFF of one directory: tag → (type, value)."""
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", following) + bytes(64)


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new):]


def cut(data: bytes, share: float) -> bytes:
    return data[:int(len(data) * share)]


JPEG = encode(PICTURE, "JPEG", quality=90)
PROGRESSIVE = encode(PICTURE, "JPEG", progressive=True)
PNG = encode(PICTURE, "PNG")
GIF = encode(PICTURE, "GIF")
BMP = encode(PICTURE, "BMP")
WEBP = encode(PICTURE, "WEBP", lossless=True)
TIFF = encode(PICTURE, "TIFF")
PPM = encode(PICTURE, "PPM")
SOF = JPEG.index(b"\xff\xc0")
TWO_BY_TWO = {256: (3, 2), 257: (3, 2), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 100), 278: (3, 2), 279: (4, 4)}

# name → (contents, what the reason must contain)
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty"),
    "text.jpg": (b"not an image at all, but a note to myself\n" * 20, "not an image"),
    "page.png": (b"<!doctype html><html><body><img src=x></body></html>", "not an image"),
    "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not an image"),
    "archive.jpg": (b"PK\x03\x04" + bytes(200), "not an image"),
    "zeros.gif": (bytes(4096), "not an image"),
    "fits.jpg": (b"SIMPLE  =                    T" + b" " * 2850, "not an image"),
    "photoshop.jpg": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(90), "not an image"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not an image"),
    "document.jpg": (b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n", "not an image"),
    "icon.png": (encode(PICTURE, "ICO", sizes=[(32, 32)]), "not an image"),
    "targa.png": (encode(PICTURE, "TGA"), "not an image"),
    "pcx.png": (encode(PICTURE, "PCX"), "not an image"),
    "jpeg_start.jpg": (JPEG[:2], "not an image"),
    "jpeg_start_end.jpg": (b"\xff\xd8\xff\xd9", "not an image"),
    "jpeg_01.jpg": (cut(JPEG, 0.01), "damaged"),
    "jpeg_50.jpg": (cut(JPEG, 0.5), "damaged"),
    "jpeg_99.jpg": (cut(JPEG, 0.99), "damaged"),
    "jpeg_less_20.jpg": (JPEG[:-20], "damaged"),
    "jpeg_no_end.jpg": (JPEG[:-2], "damaged"),
    "jpeg_progressive.jpg": (cut(PROGRESSIVE, 0.6), "damaged"),
    "jpeg_12_bit.jpg": (patched(JPEG, SOF + 4, b"\x0c"), "not an image"),
    "jpeg_huge.jpg": (patched(JPEG, SOF + 5, b"\xff\xff\xff\xff"), "too large"),
    "jpeg_no_tables.jpg": (JPEG[:20] + JPEG[SOF:], "damaged"),
    "png_signature.png": (PNG[:8], "not an image"),
    "png_half.png": (cut(PNG, 0.5), "damaged"),
    "png_header_crc.png": (png(2, 2, bytes(6), header_crc=1), "not an image"),
    "png_no_palette.png": (png(1, 1, b"\0\0", colour=3), "damaged"),
    "png_long.png": (png(1, 66_000, bytes(132_000)), "too long"),
    "png_garbage_data.png": (PNG[:60] + bytes(50) + PNG[110:], "damaged"),
    "png_bomb.png": (png(60000, 60000, b""), "too large"),
    "png_9000.png": (png(9000, 9000, bytes(9000 * 1126), bits=1), "too large: 9000×9000"),
    "png_text_bomb.png": (png(2, 2, bytes(6), extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))),
                          "damaged"),
    "png_no_width.png": (png(0, 7, b""), "not an image"),
    "png_odd_bits.png": (png(2, 2, bytes(6), bits=7), "not an image"),
    "gif_no_size.gif": (patched(GIF, 6, bytes(4)).replace(struct.pack("<HH", 64, 48), bytes(4)), "not an image"),
    "gif_half.gif": (cut(GIF, 0.5), "damaged"),
    "bmp_half.bmp": (cut(BMP, 0.5), "damaged"),
    "bmp_huge.bmp": (patched(BMP, 18, struct.pack("<ii", 2**30, 2**30)), "too large"),
    "bmp_odd_bits.bmp": (patched(BMP, 28, b"\x07"), "damaged"),
    "webp_half.webp": (cut(WEBP, 0.5), "damaged"),
    "tiff_half.tif": (cut(TIFF, 0.5), "damaged"),
    "tiff_huge.tif": (tiff({**TWO_BY_TWO, 256: (4, 10**6), 257: (4, 10**6)}), "too large"),
    "tiff_loop.tif": (b"II*\0" + struct.pack("<IHI", 8, 0, 8), "not an image"),
    "tiff_float.tif": (encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "white is not defined"),
    "tiff_32_bit.tif": (encode(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"), "white is not defined"),
    "ppm_half.ppm": (cut(PPM, 0.5), "damaged"),
    "ppm_no_size.ppm": (b"P6\n0 0\n255\n", "not an image"),
    "ppm_words.ppm": (b"P6\nwide high\n255\n", "damaged"),
}

# name → (contents, the pixel at the top left, width and height)
ODD: dict[str, tuple[bytes, tuple[int, int, int], tuple[int, int]]] = {
    "jpeg_named.png": (encode(Image.new("RGB", (8, 8), (255, 255, 255)), "JPEG"), (255, 255, 255), (8, 8)),
    "grey.jpg": (encode(Image.new("L", (9, 5), 77), "JPEG"), (77, 77, 77), (9, 5)),
    "cmyk.jpg": (encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100), (255, 0, 0), (8, 8)),
    "progressive.jpg": (encode(Image.new("RGB", (8, 8), (80, 80, 80)), "JPEG", progressive=True), (80, 80, 80), (8, 8)),
    "junk_behind.png": (PNG + b"junk" * 99, (0, 0, 64), (64, 48)),
    "broken_exif.jpg": (encode(Image.new("L", (9, 5), 77), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
                        (77, 77, 77), (9, 5)),
    "garbage_exif.jpg": (encode(Image.new("L", (9, 5), 77), "JPEG", exif=b"Exif\0\0" + b"\xab" * 50),
                         (77, 77, 77), (9, 5)),
    "garbage_profile.png": (encode(PICTURE, "PNG", icc_profile=b"\xab" * 999), (0, 0, 64), (64, 48)),
    "huge_profile.jpg": (encode(Image.new("L", (9, 5), 77), "JPEG", icc_profile=bytes(900_000)), (77, 77, 77), (9, 5)),
    "one_bit.png": (encode(Image.new("1", (9, 5), 1), "PNG"), (255, 255, 255), (9, 5)),
    "16_bit_grey.png": (png(1, 1, b"\0\x80\x80", bits=16), (128, 128, 128), (1, 1)),
    "16_bit_dark.png": (png(1, 1, b"\0\x02\x02", bits=16), (2, 2, 2), (1, 1)),
    "16_bit_white.png": (png(1, 1, b"\0\xff\xff", bits=16), (255, 255, 255), (1, 1)),
    "16_bit_colour.png": (png(1, 1, b"\0\x80\x80\x40\x40\xff\xff", bits=16, colour=2), (128, 64, 255), (1, 1)),
    "16_bit.tif": (encode(Image.fromarray(np.full((3, 4), 0x4040, np.uint16)), "TIFF"), (64, 64, 64), (4, 3)),
    "16_bit.pgm": (b"P5\n1 1\n65535\n\x80\x80", (128, 128, 128), (1, 1)),
    "10_bit.pgm": (b"P5\n1 1\n1023\n\x03\xff", (255, 255, 255), (1, 1)),
    "interlaced.png": (png(1, 1, b"\0\x4d", interlace=1), (77, 77, 77), (1, 1)),
    "animated.png": (encode(PICTURE, "PNG", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
                     (0, 0, 64), (64, 48)),
    "palette.png": (encode(Image.new("RGB", (9, 5), (1, 2, 3)).quantize(2), "PNG"), (1, 2, 3), (9, 5)),
    "data_crc.png": (png(1, 1, b"\0\x4d", data_crc=1), (77, 77, 77), (1, 1)),  # zlib's own checksum holds
    "palette_clear.png": (png(1, 1, b"\0\0", colour=3, extra=chunk(b"PLTE", b"\xff\0\0") + chunk(b"tRNS", b"\0")),
                          (128, 128, 128), (1, 1)),
    "alpha_clear.png": (encode(Image.new("RGBA", (9, 5), (255, 0, 0, 0)), "PNG"), (128, 128, 128), (9, 5)),
    "alpha_opaque.png": (encode(Image.new("RGBA", (9, 5), (255, 0, 0, 255)), "PNG"), (255, 0, 0), (9, 5)),
    "alpha_half.png": (encode(Image.new("RGBA", (9, 5), (255, 0, 0, 128)), "PNG"), (192, 64, 64), (9, 5)),
    "grey_alpha.png": (encode(Image.new("LA", (9, 5), (255, 0)), "PNG"), (128, 128, 128), (9, 5)),
    "grey_key.png": (png(1, 1, b"\0\x07", extra=chunk(b"tRNS", b"\0\x07")), (128, 128, 128), (1, 1)),
    "colour_key.png": (png(1, 1, b"\0\1\2\3", colour=2, extra=chunk(b"tRNS", b"\0\1\0\2\0\3")),
                       (128, 128, 128), (1, 1)),
    "clear.gif": (encode(Image.new("P", (9, 5), 3), "GIF", transparency=3), (128, 128, 128), (9, 5)),
    "frames.gif": (encode(Image.new("L", (9, 5), 255), "GIF", save_all=True,
                          append_images=[Image.new("L", (9, 5), n) for n in (0, 9)]), (255, 255, 255), (9, 5)),
    "top_down.bmp": (patched(BMP, 22, struct.pack("<i", -48)), (0, 47 * 5, 64), (64, 48)),
    "pages.tif": (encode(PICTURE, "TIFF", save_all=True, append_images=[Image.new("L", (3, 3))]), (0, 0, 64), (64, 48)),
    "clear.webp": (encode(Image.new("RGBA", (9, 5), (9, 9, 9, 0)), "WEBP", lossless=True), (128, 128, 128), (9, 5)),
    "lossless.webp": (WEBP, (0, 0, 64), (64, 48)),
    "bits.pbm": (b"P1\n2 1\n0 1\n", (255, 255, 255), (2, 1)),
    "dot.png": (encode(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), (1, 2, 3), (1, 1)),
    "thin.png": (encode(Image.new("RGB", (1, 5000), (1, 2, 3)), "PNG"), (1, 2, 3), (1, 5000)),
    "flat.png": (encode(Image.new("RGB", (5000, 1), (1, 2, 3)), "PNG"), (1, 2, 3), (5000, 1)),
}

# what is no regular file: name → what the reason must contain
SPECIAL = {"folder.jpg": "folder", "nowhere.jpg": "no such file", "circle.jpg": "symbolic links", "pipe.jpg": "regular"}


def write_specials(folder: Path) -> None:
    (folder / "folder.jpg").mkdir()
    (folder / "nowhere.jpg").symlink_to("is-not-here.jpg")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    os.mkfifo(folder / "pipe.jpg")


def write_bad(folder: Path) -> list[str]:
    """Every file that must be refused, written into a folder that exists; their names."""
    for name, (data, _) in REFUSED.items():
        (folder / name).write_bytes(data)
    write_specials(folder)
    return [*REFUSED, *SPECIAL]
