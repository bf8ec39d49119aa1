"""Data: what is held out stays out, what cannot be read is skipped, what is large is kept small."""

import inspect
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from recipes import recipe, tiny

from deconvnet import training
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.images import Preprocess
from deconvnet.sealed import seal
from deconvnet.training import Recipe, data
from deconvnet.training.evaluate import evaluate


def picture(file: Path, colour: str = "red", size: tuple[int, int] = (40, 30)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file, "PNG")


def load(settings: Recipe, notes: Path | None = None) -> data.Data:
    return data.load(settings, notes, progress=False)


def test_the_split_is_by_class_and_by_name_and_skips_what_cannot_be_read(tree: Path) -> None:
    pictures = load(recipe(tree))
    assert pictures.classes == ["across", "down", "plain"]
    assert list(pictures.unreadable) == ["plain/0.png"] and "not an image" in pictures.unreadable["plain/0.png"]
    train = pictures.train.labels
    assert train.count(0) == train.count(1) == 4 and train.count(2) in (3, 4)
    assert len(pictures.train) + len(pictures.held_out) == 20
    seen = {picture.numpy().tobytes() for picture in pictures.train}
    assert not seen & {picture.numpy().tobytes() for picture in pictures.held_out}
    other = load(recipe(tree, seed=1))
    assert seen != {picture.numpy().tobytes() for picture in other.train}


def test_large_pictures_are_kept_small(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / name / "x.png", size=(900, 600))
    assert load(recipe(tmp_path)).train[0].shape == (3, 256, 384)


# ---- what is learned from, and what is held out ----


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Five pictures of each of three classes, and two of none."""
    for colour in ("blue", "green", "red"):
        for number in range(5):
            picture(tmp_path / "colours" / colour / f"{number}.png", colour)
    for name in ("a.png", "z.png"):
        picture(tmp_path / "colours" / name, "white")
    return tmp_path / "colours"


def of(pictures: data.PictureSet, channel_of: list[int]) -> bool:
    """Whether every picture has the colour of its class."""
    return all(int(picture.float().mean((1, 2)).argmax()) == channel_of[label]
               for picture, label in zip(pictures, pictures.labels, strict=True))


def test_train_per_class_and_test_per_class(colours: Path) -> None:
    def counts(**changes) -> tuple[list[int], list[int]]:
        found = load(tiny(colours, **changes))
        assert not set(found.train.numbers) & set(found.held_out.numbers)
        assert of(found.train, [2, 1, 0]) and of(found.held_out, [2, 1, 0])  # and no white ones, which have no class
        return tuple([pictures.labels.count(n) for n in range(3)] for pictures in (found.train, found.held_out))

    assert counts(train_per_class=3) == ([3, 3, 3], [2, 2, 2])
    assert counts(train_per_class=3, test_per_class=1) == ([3, 3, 3], [1, 1, 1])
    assert counts(train_per_class=None) == ([5, 5, 5], [0, 0, 0])
    assert counts(train_per_class=9) == ([5, 5, 5], [0, 0, 0])


def test_held_out_may_be_a_folder_of_its_own_with_fewer_classes(colours: Path, tmp_path: Path) -> None:
    for number in range(4):
        for colour in ("red", "green"):
            picture(tmp_path / "other" / colour / f"{number}.png", colour)
    found = load(tiny(colours, held_out=str(tmp_path / "other"), train_per_class=None))
    assert len(found.train) == 15 and found.held_out.labels == [1] * 4 + [2] * 4
    assert of(found.train, [2, 1, 0]) and of(found.held_out, [2, 1, 0])
    few = load(tiny(colours, held_out=str(tmp_path / "other"), train_per_class=2, test_per_class=3))
    assert len(few.train) == 6 and len(few.held_out) == 6
    assert len({found.manifest, load(tiny(colours)).manifest}) == 2


def test_held_out_classes_are_known_by_name_not_by_number(tmp_path: Path) -> None:
    for name, colour in (("0", "blue"), ("1", "red")):
        picture(tmp_path / name / "x.png", colour)
    settings = tiny(tmp_path, images="torchvision:FakeData", held_out=str(tmp_path))
    settings = settings.model_copy(update={"train_per_class": 1})
    real = data.Torchvision.__init__

    def turned(self, *arguments) -> None:
        real(self, *arguments)
        self.classes = ["1", "0"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.Torchvision, "__init__", turned)
        assert of(load(settings).held_out, [0, 2])


def test_a_held_out_class_that_cannot_be_learned_is_named(colours: Path, tmp_path: Path) -> None:
    for colour in ("red", "yellow"):
        picture(tmp_path / "other" / colour / "x.png", colour)
    with pytest.raises(UsageError, match=r"held_out: .*other has the class yellow, and .*colours has not"):
        load(tiny(colours, held_out=str(tmp_path / "other")))


def test_nothing_held_out_is_nothing_to_measure(colours: Path, tmp_path: Path) -> None:
    found = load(tiny(colours, train_per_class=None))
    assert evaluate(torch.nn.Identity(), found.held_out, Preprocess()) == {}
    with pytest.raises(UsageError, match="plateau needs held-out images"):
        load(tiny(colours, train_per_class=None, schedule="plateau"))
    for colour in ("blue", "red"):
        (tmp_path / "other" / colour).mkdir(parents=True)
        (tmp_path / "other" / colour / "x.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="plateau needs held-out images"):  # none that can be read
        load(tiny(colours, held_out=str(tmp_path / "other"), schedule="plateau"))


def test_what_a_run_has_and_lacks_is_told(colours: Path, tmp_path: Path) -> None:
    (colours / "red" / "notes.txt").write_text("no image")
    for number in (3, 4):
        (colours / "green" / f"{number}.png").unlink()
    assert data.notes(load(tiny(colours, train_per_class=3))) == [
        "9 images of 3 classes to learn from, 4 to measure on", "no image to measure on in 1 of 3 classes: 'green'",
        "1 files are no images by their ending, and are passed over"]
    told = data.notes(load(tiny(colours, train_per_class=None)))
    assert told[0] == "13 images of 3 classes to learn from, 0 to measure on"
    assert told[1].startswith("nothing to measure on: ") and len(told) == 3


def test_a_folder_that_is_not_there_is_said_with_its_key(colours: Path) -> None:
    for key in ("images", "held_out"):
        with pytest.raises(UsageError, match=f"^{key}: cannot list the folder"):
            load(tiny(colours, **{key: str(colours / "nowhere")}))


# ---- what cannot be read ----


def test_unreadable_files_of_both_sets_are_skipped_and_named_and_counted(colours: Path, tmp_path: Path, capsys) -> None:
    names = [os.fsdecode(b"\xff\xfe.png"), "a: b: c.png", "ü.png"]
    for name in names:
        (colours / "red" / name).write_bytes(b"no picture")
        picture(tmp_path / "other" / "blue" / name, "blue")
    (tmp_path / "other" / "blue" / names[0]).write_bytes(b"")
    (tmp_path / "other" / "blue" / "d: e.png").write_bytes(b"")
    for workers in (0, 2):
        settings = tiny(colours, held_out=str(tmp_path / "other"), train_per_class=None, workers=workers)
        found = data.load(settings, progress=True)
        assert set(found.unreadable) == {*(f"red/{name}" for name in names), f"blue/{names[0]}", "blue/d: e.png"}
        assert "not an image" in found.unreadable["red/a: b: c.png"] and "empty" in found.unreadable["blue/d: e.png"]
        assert len(found.train) == 15 and len(found.held_out) == 2
        assert of(found.train, [2, 1, 0]) and of(found.held_out, [2, 1, 0])
        assert "skipped: 'red/a: b: c.png': not an image" in capsys.readouterr().out


def test_names_that_are_not_utf8_go_into_notes_and_cards(tree: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    for name in ("across", "down"):
        for number in range(5):
            copy = tmp_path / "tree" / (odd if name == "down" else name) / f"{number}.png"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((tree / name / copy.name).read_bytes())
    (tmp_path / "tree" / odd / f"{odd}.png").write_bytes(b"")
    card = training.train(tiny(tmp_path / "tree", memory=0), tmp_path / "out", progress=False)
    assert card["classes"] == ["across", odd] and card["unreadable"] == 1
    from deconvnet import load_model

    assert load_model("zfnet", tmp_path / "out/weights.safetensors").classes == ["across", odd]
    again = load(tiny(tmp_path / "tree", memory=0), tmp_path / "out/images.safetensors")
    assert list(again.unreadable) == [f"{odd}/{odd}.png"]


# ---- memory ----


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """The numbers of the pictures that were read from their files, in turn."""
    seen: list[int] = []
    real = data.Files.picture
    monkeypatch.setattr(data.Files, "picture", lambda self, number: seen.append(number) or real(self, number))
    return seen


def same(one: data.Data, other: data.Data) -> bool:
    return (all(torch.equal(getattr(one, key), getattr(other, key)) for key in ("mean", "std", "mean_picture"))
            and one.unreadable == other.unreadable
            and all(torch.equal(a, b) for name in ("train", "held_out")
                    for a, b in zip(getattr(one, name), getattr(other, name), strict=True)))


def test_memory_and_workers_change_nothing_that_is_trained(tree: Path, tmp_path: Path) -> None:
    settings = [{}, {"memory": 0.0, "workers": 2}, {"memory": 0.0}]  # the last finds the notes of the second
    for number, changes in enumerate(settings):
        training.train(tiny(tree, **changes), tmp_path / str(number), progress=False)
        if changes.get("workers"):
            notes = (tmp_path / str(number) / "images.safetensors").read_bytes()
            (tmp_path / str(number + 1)).mkdir()
            (tmp_path / str(number + 1) / "images.safetensors").write_bytes(notes)
    assert not (tmp_path / "0/images.safetensors").exists()
    weights = [(tmp_path / str(number) / "weights.safetensors").read_bytes() for number in range(3)]
    assert weights[0] == weights[1] == weights[2]


def test_what_does_not_fit_into_memory_is_read_again_but_surveyed_once(tree: Path, tmp_path: Path, reads) -> None:
    kept = load(tiny(tree), tmp_path / "notes")
    assert len(reads) == 21 and len(list(kept.train)) and len(reads) == 21 and not (tmp_path / "notes").exists()
    streamed = load(tiny(tree, memory=0), tmp_path / "notes")
    assert len(reads) == 42 and streamed.train.kept is None and streamed.held_out.kept is None
    assert streamed.train[0].shape == (3, 150, 140) and len(reads) == 43
    recalled = load(tiny(tree, memory=0), tmp_path / "notes")
    assert len(reads) == 43  # the second run reads none of them to know them all
    assert same(kept, streamed) and same(streamed, recalled)
    half = 12 * 3 * 150 * 140 / 2**30  # enough for what is learned from, not for what is held out
    assert same(load(tiny(tree, memory=half)), kept) and load(tiny(tree, memory=half)).train.kept is None


def test_notes_of_something_else_are_ignored(tree: Path, colours: Path, tmp_path: Path, reads) -> None:
    notes = tmp_path / "notes"
    settings = tiny(tree, memory=0)
    right = load(settings, notes)
    whole = notes.read_bytes()
    for wrong in (b"", whole[:-1], whole[:-9] + b"\1" + whole[-8:], seal({"net": torch.zeros(2)}, {"step": 1})):
        notes.write_bytes(wrong)
        reads.clear()
        assert same(load(settings, notes), right) and len(reads) >= 21
        assert notes.read_bytes() == whole
    for other in ({"seed": 1}, {"train_per_class": 3}, {"test_per_class": 1}, {"images": str(colours)}):
        notes.write_bytes(whole)
        reads.clear()
        load(tiny(tree, **{"memory": 0, **other}), notes)
        assert len(reads) >= 15, other


# ---- the mean ----


def test_mean_and_deviation_and_mean_picture_are_those_of_the_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate([(256, 256), (256, 300), (311, 256), (256, 263)]):
        file = tmp_path / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        level = rng.integers(0, 200, (8, 8, 3)).repeat(40, 0).repeat(40, 1)[:height, :width]
        Image.fromarray((level + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)).save(file)
    found = load(tiny(tmp_path, train_per_class=None))
    pixels = [np.asarray(Image.open(file), dtype=np.float64) for file in sorted(tmp_path.glob("*/*.png"))]
    squares = []
    for p in pixels:
        top, left = (p.shape[0] - 256) // 2, (p.shape[1] - 256) // 2
        squares.append(p[top:top + 256, left:left + 256] / 255)
    expected = np.mean(squares, 0).transpose(2, 0, 1)
    np.testing.assert_allclose(found.mean_picture, expected, rtol=0, atol=1e-6)
    thumbnails = np.concatenate([  # (pixels, 3)
        data.cut(torch.from_numpy(p.astype(np.uint8).transpose(2, 0, 1)), (0, 0, *p.shape[:2]), 32).flatten(1).T
        for p in pixels]).astype(np.float64) / 255
    np.testing.assert_allclose(found.mean, thumbnails.mean(0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.std, thumbnails.std(0, ddof=1), rtol=0, atol=1e-6)
    whole = np.mean([p.mean((0, 1)) for p in pixels], 0) / 255  # every picture counts alike, whatever its size
    np.testing.assert_allclose(found.mean, whole, rtol=0, atol=0.5 / 255)


def test_small_pictures_are_enlarged_for_the_mean_picture(colours: Path) -> None:
    for file in colours.glob("green/*"):
        file.unlink()
    found = load(tiny(colours, train_per_class=None))
    assert found.mean_picture.shape == (3, 256, 256)
    torch.testing.assert_close(found.mean_picture.mean((1, 2)), torch.tensor([0.5, 0, 0.5]), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.std, torch.tensor([0.5, 1 / 255, 0.5]), rtol=1e-3, atol=0)


# ---- torchvision's sets ----


def test_a_set_of_torchvision_goes_all_the_way(tmp_path: Path) -> None:
    settings = tiny(tmp_path, images="torchvision:FakeData", train_per_class=None, test_per_class=3, batch=32)
    card = training.train(settings, tmp_path / "out", progress=False)
    assert card["classes"] == ["0", "1"] and card["held_out"]["images"] == 6
    found = load(settings)
    assert len(found.train) == 64 and found.train[0].shape == (3, 224, 224) and {*found.train.labels} == {0, 1}
    assert found.train.source.files[3] == "FakeData/0000003"
    split = load(tiny(tmp_path, images="torchvision:FakeData", train_per_class=5))  # then of one part both
    assert len(split.train) == 10 and len(split.held_out) == 54


def test_a_set_that_torchvision_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no torchvision:Cifar10; there are CIFAR10, CIFAR100, Caltech101"):
        load(tiny(tmp_path, images="torchvision:Cifar10"))


@pytest.mark.parametrize("reason", [
    RuntimeError("File not found or corrupted."), URLError("no route to host"), ModuleNotFoundError("no scipy"),
    tarfile.ReadError("unexpected end of data"), EOFError("ended too early"), ValueError("unknown value")])
def test_a_set_that_cannot_be_had_is_one_clear_error(tmp_path: Path, monkeypatch, reason: Exception) -> None:
    class Failing:
        def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
            assert root == str(tmp_path) and download
            raise reason

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Failing)
    with pytest.raises(DeconvnetError) as refusal:
        load(tiny(tmp_path, images="torchvision:CIFAR10", downloads=str(tmp_path)))
    first, second = str(refusal.value).splitlines()
    assert first.startswith("torchvision:CIFAR10 cannot be had") and str(reason) in first
    assert "by hand" in second and "one subfolder a class" in second


def test_pictures_of_torchvision_that_cannot_be_read_are_skipped(tmp_path: Path, monkeypatch) -> None:
    real = torchvision.datasets.FakeData.__getitem__

    def broken(self, index: int):
        image, label = real(self, index)
        if index == 7 and len(self) == 64 and inspect.stack()[1].function == "picture":
            raise SyntaxError("not a\nPNG file")
        return (image.convert("L") if index == 8 else image), label

    monkeypatch.setattr(torchvision.datasets.FakeData, "__getitem__", broken)
    found = load(tiny(tmp_path, images="torchvision:FakeData", train_per_class=None, test_per_class=1))
    assert found.unreadable == {"FakeData/0000007": "not a PNG file"} and len(found.train) == 63
    assert found.train[7].shape == (3, 224, 224)  # grey is repeated


@pytest.mark.parametrize("name", data.TORCHVISION)
def test_torchvision_takes_what_we_ask_of_it(name: str, tmp_path: Path) -> None:
    make = getattr(torchvision.datasets, name)
    place = {} if name == "FakeData" else {"root": str(tmp_path), "download": False}
    source = "".join(inspect.getsource(part) for part in make.__mro__[:-1] if part.__module__.startswith("torchvision"))
    attributes = ("targets", "labels", "_labels", "y", "_samples")
    assert name == "FakeData" or any(f"self.{attribute}" in source for attribute in attributes)
    for options in data.TORCHVISION[name]:
        if options is None:
            continue
        inspect.signature(make).bind(**place, **options)
        if place:
            with pytest.raises(RuntimeError, match="not found"):  # and not ValueError: each part that we ask for exists
                make(**place, **options)


@pytest.mark.parametrize("attribute", ["targets", "labels", "_labels", "y", "_samples"])
def test_labels_are_found_where_torchvision_keeps_them(attribute: str) -> None:
    value = [("file", 3), ("other", 1)] if attribute == "_samples" else torch.tensor([3, 1])
    assert [int(label) for label in data._labels(SimpleNamespace(**{attribute: value}))] == [3, 1]


def test_labels_are_read_off_the_items_where_they_are_nowhere_else() -> None:
    assert data._labels([("picture", 3), ("other", 1)]) == [3, 1]
