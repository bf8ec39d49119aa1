"""Data: what is held out stays out, what cannot be read is skipped, what is large is kept small."""

from pathlib import Path

from PIL import Image
from recipes import recipe

from deconvnet.training import data


def test_the_split_is_by_class_and_by_name_and_skips_what_cannot_be_read(tree: Path) -> None:
    pictures = data.load(recipe(tree), progress=False)
    assert pictures.classes == ["across", "down", "plain"]
    assert list(pictures.unreadable) == ["plain/0.png"] and "not an image" in pictures.unreadable["plain/0.png"]
    train = pictures.train.labels
    assert train.count(0) == train.count(1) == 4 and train.count(2) in (3, 4)
    assert len(pictures.train) + len(pictures.held_out) == 20
    seen = {picture.numpy().tobytes() for picture in pictures.train}
    assert not seen & {picture.numpy().tobytes() for picture in pictures.held_out}
    other = data.load(recipe(tree, seed=1), progress=False)
    assert seen != {picture.numpy().tobytes() for picture in other.train}


def test_large_pictures_are_kept_small(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (900, 600), "red").save(tmp_path / name / "x.png")
    assert data.load(recipe(tmp_path), progress=False).train[0].shape == (3, 256, 384)
