"""The pictures of the README's table: small, there, and made of cells that there are."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
specification = importlib.util.spec_from_file_location("pictures", ROOT / "notebooks" / "pictures.py")
pictures = importlib.util.module_from_spec(specification)
specification.loader.exec_module(pictures)

LESSONS = {int(path.name[0]): path for path in (ROOT / "notebooks" / "source").glob("[0-9]*.py")}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_lesson_has_a_picture_and_a_row():
    assert set(pictures.CELLS) == set(LESSONS)
    for number, path in LESSONS.items():
        title = re.search(rf"^# # {number} · (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert title, f"{path.name} begins with '# NUMBER · TITLE'"
        assert f"| {number} [{title[1]}](notebooks/{path.stem}.ipynb) |" in README
        assert f'<img src="notebooks/pictures/{number}.jpg" width=' in README


@pytest.mark.parametrize("number", pictures.CELLS)
def test_a_picture_is_small_and_of_a_cell_that_there_is(number):
    file = ROOT / "notebooks" / "pictures" / f"{number}.jpg"
    with Image.open(file) as picture:
        assert picture.format == "JPEG" and picture.width == pictures.WIDTH and 60 < picture.height < 300
        assert np.asarray(picture).std() > 10
    assert file.stat().st_size <= pictures.MOST
    cells = LESSONS[number].read_text(encoding="utf-8").split("# %%")
    assert len([cell for cell in cells if pictures.CELLS[number][0] in cell and " [markdown]" not in cell[:12]]) == 1


def test_a_picture_is_cut_shrunk_and_kept_below_the_limit():
    noise = np.random.default_rng(0).integers(0, 256, (400, 1000, 3), dtype=np.uint8)
    noise[:200] = 255
    found = pictures.small(Image.fromarray(noise), (0, 0.5, 1, 1))
    picture = Image.open(pictures.io.BytesIO(found))
    assert picture.size == (360, 72) and len(found) <= pictures.MOST and np.asarray(picture).mean() < 200
