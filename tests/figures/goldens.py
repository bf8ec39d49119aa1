"""Golden pictures: what a drawing of given arrays looked like when someone last looked at it and found it right."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet.exhibit import png

FOLDER = Path(__file__).parent / "golden"
LIMIT = 2.0  # of 255, root mean square: another version of the font's renderer stays below, a moved tile does not


def distance(drawing, name: str) -> float:
    """The root mean square difference of a drawing from its golden picture; infinite where the sizes differ.

    With DECONVNET_GOLDEN=1 in the environment the drawing becomes the golden picture: look at it before you commit it.
    """
    picture = Image.open(io.BytesIO(png(drawing, {}))).convert("RGB")
    file = FOLDER / f"{name}.png"
    if os.environ.get("DECONVNET_GOLDEN") == "1":
        picture.save(file, optimize=True)
    golden = Image.open(file).convert("RGB")
    if golden.size != picture.size:
        return float("inf")
    return float(np.sqrt(np.mean((np.asarray(picture, float) - np.asarray(golden, float)) ** 2)))


def assert_golden(drawing, name: str) -> None:
    """Fails where a drawing no longer looks like its golden picture."""
    assert distance(drawing, name) <= LIMIT


def assert_not_golden(drawing, name: str) -> None:
    """Fails where a drawing that is wrong on purpose cannot be told from the golden picture."""
    assert os.environ.get("DECONVNET_GOLDEN") == "1" or distance(drawing, name) > LIMIT
