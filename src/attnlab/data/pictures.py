"""One picture: its bytes made 8-bit grey or RGB pixels, whatever its format, orientation, mode, bit depth or size."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_GREY = ("1", "L", "LA", "La")  # modes with a single channel, transparency apart
_SIXTEEN_BITS = 2**16 - 1


class UnreadablePicture(Exception):
    """There is no picture to be had; the message says why, as the end of a sentence and without a full stop."""


def read(path: Path) -> bytes:
    """A file's bytes; UnreadablePicture where the disk refuses."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadablePicture(error.strerror or str(error)) from error


def decode(content: bytes, size: tuple[int, int] | None = None) -> Image.Image:
    """The picture in a file's bytes, upright: in mode L if the file has a single channel, else in mode RGB.

    16-bit pixels are scaled to 8 bits, transparent parts become white, and of several frames the first is taken.

    Args:
        content: the bytes of a file in any format that Pillow reads.
        size: (width, height) in pixels to resize to, antialiased; the aspect ratio is given up, nothing is cut off.

    Raises:
        UnreadablePicture: if the bytes are damaged, no picture, or of pixels that have no 8-bit form.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            picture = _plain(image)
        return picture if size in (None, picture.size) else picture.resize(size, Image.Resampling.BILINEAR)
    except UnreadablePicture:
        raise
    except UnidentifiedImageError as error:
        raise UnreadablePicture("it is empty" if not content else "it is no picture, or a damaged one") from error
    except Exception as error:  # of many types: Pillow's decoders speak about the bytes, which are the user's
        raise UnreadablePicture((str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".!")) from error


def pixels(picture: Image.Image, channels: int) -> np.ndarray:
    """uint8 [C, H, W] with C = 1 (grey) or 3 (red, green, blue)."""
    array = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return np.atleast_3d(array).transpose(2, 0, 1)


def _plain(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB."""
    if image.mode == "F":
        raise UnreadablePicture("its pixels are floating-point numbers (mode F), where 8 or 16 bits are needed")
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    mode = "L" if image.mode in _GREY else "RGB"
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return image.convert(mode)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Integers of 16 bits as uint8: 65535 becomes 255."""
    values = values.astype(np.int64)
    if values.min() < 0 or values.max() > _SIXTEEN_BITS:
        raise UnreadablePicture(f"its pixels range from {values.min()} to {values.max()}, beyond 16 bits (mode I)")
    return ((values + 128) // 257).astype(np.uint8)
