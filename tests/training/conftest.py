"""What the tests of training share: a small tree of pictures, and a run over it that went through."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recipes import recipe

from deconvnet import training


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """Three classes of seven pictures, one of them unreadable: stripes down, stripes across, plain."""
    root, rng = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for name, pattern in (("across", (1, 0)), ("down", (0, 1)), ("plain", (0, 0))):
        (root / name).mkdir()
        for number in range(7):
            y, x = np.mgrid[:150, :140] // 8
            stripes = (y * pattern[0] + x * pattern[1]) % 2 * 150
            pixels = np.clip(stripes[..., None] + rng.integers(0, 80, (150, 140, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    (root / "plain" / "0.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="session")
def finished(tree: Path, tmp_path_factory) -> Path:
    """The folder of a run of two epochs that was not cut off; tests copy it before they change it."""
    out = tmp_path_factory.mktemp("finished") / "new" / "folder"
    training.train(recipe(tree), out, progress=False)
    return out
