"""Table 6: PASCAL VOC as torchvision lays it out, in a little tree."""

import numpy as np
import pytest
import trees

from deconvnet.errors import UsageError
from deconvnet.network import load_model
from deconvnet.tables import voc

pytestmark = pytest.mark.usefixtures("one_thread")


def truth():
    """Two classes, one of which is red; image t03 is difficult for it, and v03 too."""
    train = {f"t{n:02}": 1 if n < 3 else 0 if n == 3 else -1 for n in range(8)}
    val = {f"v{n:02}": 1 if n < 3 else 0 if n == 3 else -1 for n in range(8)}
    return {"train": {"car": train, "dog": {name: 1 if number % 2 else -1 for number, name in enumerate(train)}},
            "val": {"car": val, "dog": {name: 1 if number % 2 else -1 for number, name in enumerate(val)}}}


def settings(tmp_path, images, **more):
    return voc.Settings(model=trees.network(tmp_path), weights=None, images=str(images), layer="pool1", **more)


def test_each_class_is_measured_against_all_others_and_beside_the_papers(tmp_path):
    table = voc.make(settings(tmp_path, trees.voc(tmp_path, truth())), progress=False)
    car, dog, mean = table.rows
    assert car[0] == "car" and car[1:3] == [100, 100] and car[3:] == [81.9, 86.8, 84.4, 78.6]
    assert dog[0] == "dog" and 0 < dog[1] <= 100
    assert mean[1] == pytest.approx((car[1] + dog[1]) / 2) and mean[3:] == [74.3, 82.2, 82.8, 79.0]
    assert "train (8 images)" in table.caption and "difficult" in table.caption
    assert str(tmp_path) not in str(table.origin) + table.caption


def test_difficult_images_do_not_count(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(voc, "one_against_all",
                        lambda train, truth, test, *_: seen.append((len(train), len(test))) or np.zeros(len(test)))
    voc.make(settings(tmp_path, trees.voc(tmp_path, truth())), progress=False)
    assert seen == [(7, 7), (8, 8)]


@pytest.mark.parametrize("inside", ["VOCdevkit/VOC2012", "VOCdevkit", ""])
def test_the_folder_is_found_wherever_it_is_named(tmp_path, inside):
    root = trees.voc(tmp_path, truth()) / inside
    lists = voc.read_lists(settings(tmp_path, root), load_model(trees.network(tmp_path)))
    assert lists.classes == ["car", "dog"] and len(lists.images) == 16
    assert lists.truth[:4].tolist() == [[1, -1], [1, 1], [1, -1], [0, 1]]
    assert [lists.images.files[number] for number in lists.test[:2]] == ["v00.jpg", "v01.jpg"]


def spoil(tmp_path, name, text):
    root = trees.voc(tmp_path, truth())
    file = root / "VOCdevkit" / "VOC2012" / name
    if text is None:
        file.unlink()
    else:
        file.write_bytes(text)
    return root


@pytest.mark.parametrize(("name", "text", "message"), [
    ("ImageSets/Main/car_train.txt", b"t00 1\nt01 maybe\n", "car_train.txt, line 2: expected an image"),
    ("ImageSets/Main/car_train.txt", b"\xff\xfe", "car_train.txt cannot be read: not UTF-8"),
    ("ImageSets/Main/dog_val.txt", None, "dog_val.txt cannot be read"),
    ("ImageSets/Main/car_train.txt", b"t00 1\nt01 1\n", "2 images with car and 0 without"),
    ("JPEGImages/v05.jpg", None, r"lacks 1 images of the lists, such as v05\.jpg")])
def test_what_is_wrong_in_the_tree_is_named(tmp_path, name, text, message):
    with pytest.raises(UsageError, match=message):
        voc.make(settings(tmp_path, spoil(tmp_path, name, text)), progress=False)


def test_a_folder_that_is_not_voc_is_refused_with_what_fetches_it(tmp_path):
    with pytest.raises(UsageError, match=r"VOCDetection\(DIR, download=True\)"):
        voc.make(settings(tmp_path, tmp_path), progress=False)
