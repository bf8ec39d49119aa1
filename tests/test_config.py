"""Configurations: what is read, and that every wrong file is refused on one screen with the cure."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from deconvnet import config
from deconvnet.errors import UsageError
from deconvnet.training import Recipe


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(ge=1)
    size: int = 224


class Toy(BaseModel):
    model_config = ConfigDict(extra="forbid")
    images: str
    rate: float = Field(default=0.1, gt=0)
    kind: Literal["paper", "he"] = "paper"
    flip: bool = True
    stages: tuple[Step, ...] = ()
    last: Step | None = None


def load(tmp_path: Path, content: str | bytes) -> Toy:
    path = tmp_path / "toy.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return config.load(path, Toy)


def test_values_arrive_with_their_types(tmp_path: Path) -> None:
    toy = load(tmp_path, "images: a b/ü\nrate: 0.5\nflip: no\nkind: he\n"
                         "stages:\n  - {epochs: 3}\n  - epochs: 4\n    size: 128\n")
    stages = (Step(epochs=3), Step(epochs=4, size=128))
    assert toy == Toy(images="a b/ü", rate=0.5, flip=False, kind="he", stages=stages)


@pytest.mark.parametrize(("written", "value"),
                         [("1e-3", 1e-3), ("1E-3", 1e-3), ("1.5e2", 150.0), ("2", 2.0), (".5", 0.5)])
def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path, written: str, value: float) -> None:
    assert load(tmp_path, f"images: x\nrate: {written}\n").rate == value


@pytest.mark.parametrize("key", ["3:12", "10:59:59", "-1:30", "1:30.5"])
def test_a_key_with_a_colon_is_text_and_no_time(tmp_path: Path, key: str) -> None:
    """The address of a unit is such a key: ``3:12`` is unit 12 of layer 3, and no 192 seconds."""
    (tmp_path / "toy.yaml").write_text(f"{key}: wheels\n")
    assert config.read(tmp_path / "toy.yaml") == {key: "wheels"}


WRONG = {
    "unknown": ("images: x\nrat: 0.1\n", ["rat: unknown key", "did you mean rate?"]),
    "unknown, unlike any": ("images: x\nzzzzz: 0.1\n", ["zzzzz: unknown key", "flip", "stages"]),
    "unknown in a list": ("images: x\nstages: [{epochs: 1}, {epoch: 2}]\n",
                          ["stages[1].epoch: unknown key", "did you mean epochs?", "stages[1].epochs: missing"]),
    "unknown in an optional part": ("images: x\nlast: {epochs: 1, sise: 3}\n", ["last.sise", "did you mean size?"]),
    "missing": ("rate: 0.1\n", ["images: missing"]),
    "type": ("images: x\nrate: fast\n", ["rate: ", "valid number", "'fast'"]),
    "range": ("images: x\nrate: -1\n", ["rate: ", "greater than 0", "-1"]),
    "choice": ("images: x\nkind: xavier\n", ["kind: ", "'paper' or 'he'", "'xavier'"]),
    "twice": ("images: x\nrate: 0.1\nrate: 0.2\n", ["line 3", "rate is there twice"]),
    "twice, deeper": ("images: x\nlast:\n  epochs: 1\n  epochs: 2\n", ["line 4", "epochs is there twice"]),
    "alias": ("images: &a x\nkind: *a\n", ["line 2", "aliases are not read"]),
    "billion laughs": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", ["line 2", "aliases are not read"]),
    "merge": ("images: x\nbase: &b {epochs: 1}\nlast: {<<: *b}\n", ["aliases are not read"]),
    "code": ("images: !!python/object/apply:os.system ['touch canary']\n",
             ["line 1", "could not determine a constructor"]),
    "python name": ("images: !!python/name:os.system\n", ["could not determine a constructor"]),
    "syntax": ("images: [x\n", ["line 2"]),
    "key that is not text": ("images: x\n3: y\n", ["line 2", "a key must be text: 3"]),
    "empty": ("", ["empty"]),
    "only a comment": ("# nothing\n", ["empty"]),
    "a list": ("- images\n", ["expected lines of `key: value`", "['images']"]),
    "a word": ("images\n", ["expected lines of `key: value`"]),
    "two documents": ("images: x\n---\nimages: y\n", ["found another document"]),
    "not UTF-8": (b"images: \xff\xfe\n", ["not UTF-8"]),
    "a NUL": (b"images: x\0\n", ["special characters are not allowed"]),
    "no such date": ("images: 2024-13-45\n", ["month must be in 1..12"]),
    "too large": ("images: x\n" + "# \n" * 400_000, ["larger than 1,000,000 bytes"]),
    "too deep": ("images: " + "[" * 5000 + "]" * 5000, ["nested too deeply"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused_with_file_place_and_cure(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    content, expected = WRONG[name]
    with pytest.raises(UsageError) as refusal:
        load(tmp_path, content)
    for part in ("toy.yaml", *expected):
        assert part in str(refusal.value)
    assert len(str(refusal.value).splitlines()) < 24
    assert not (tmp_path / "canary").exists()


def test_all_errors_are_on_one_screen(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        load(tmp_path, "rate: -1\nkind: x\nflop: true\n")
    first, *lines = str(refusal.value).splitlines()
    assert first.endswith("toy.yaml: 4 errors")
    assert sorted(line.split(":")[0].strip() for line in lines) == ["flop", "images", "kind", "rate"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: no such file"):
        config.load(tmp_path / "none.yaml", Toy)
    with pytest.raises(UsageError, match="no such file"):
        config.load(tmp_path, Toy)


OURS = sorted((Path(__file__).parents[1] / "configs/train").glob("*.yaml"))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_the_training_configurations_are_valid(path: Path) -> None:
    assert config.load(path, Recipe).stages


# ---- a file that changes another ----


def write(tmp_path: Path, **files: str) -> Path:
    """The last of the files, each called NAME.yaml, or NAME.yaml in a folder for folder__NAME."""
    for name, content in files.items():
        path = tmp_path / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return path


def test_a_file_changes_the_keys_of_its_base_and_of_that_ones_base(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path, first="images: x\nrate: 0.5\nkind: he\nflip: no\n",
                 folder__second="base: ../first.yaml\nrate: 0.25\nflip: yes\n",
                 other__third="base: ../folder/second.yaml\nrate: 0.125\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # bases lie where the files say, not where one stands
    assert config.load(path, Toy) == Toy(images="x", rate=0.125, kind="he", flip=True)
    assert config.read(path) == {"images": "x", "rate": 0.125, "kind": "he", "flip": True}


def test_a_nested_key_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = write(tmp_path, first="images: x\nlast: {epochs: 3, size: 99}\nstages: [{epochs: 1}, {epochs: 2}]\n",
                 second="base: first.yaml\nlast: {epochs: 4}\nstages: [{epochs: 5, size: 128}]\n")
    found = config.load(path, Toy)
    assert found.last == Step(epochs=4, size=224) and found.stages == (Step(epochs=5, size=128),)


@pytest.mark.parametrize(("files", "expected"), [
    ({"toy": "base: none.yaml\nimages: x\n"}, ["none.yaml: no such file"]),
    ({"toy": "base: [a.yaml, b.yaml]\nimages: x\n"}, ["toy.yaml: base: expected the name of a file", "['a.yaml'"]),
    ({"toy": "base:\nimages: x\n"}, ["toy.yaml: base: expected the name of a file", "None"]),
    ({"toy": "base: toy.yaml\nimages: x\n"}, ["toy.yaml: base: leads back"]),
    ({"b": "base: c.yaml\n", "c": "base: toy.yaml\n", "toy": "base: b.yaml\nimages: x\n"}, ["base: leads back"]),
    ({"b": "- a list\n", "toy": "base: b.yaml\nimages: x\n"}, ["b.yaml: expected lines of `key: value`"]),
    ({"b": "images: x\nimages: y\n", "toy": "base: b.yaml\n"}, ["b.yaml: line 2", "images is there twice"]),
    ({"b": "images: x\nrat: 1\n", "toy": "base: b.yaml\n"},
     ["toy.yaml: 1 error", "rat: unknown key; did you mean rate? (in ", "b.yaml)"]),
    ({"c": "flop: 1\n", "folder__b": "base: ../c.yaml\nlast: {epoch: 1}\n", "toy": "base: folder/b.yaml\nrate: x\n"},
     ["5 errors", "flop: unknown key; did you mean flip? (in ", "c.yaml)", "last.epoch: unknown key", "b.yaml)",
      "images: missing\n", "found 'x'\n"]),
])
def test_what_is_wrong_with_a_base_is_said_with_its_file(tmp_path: Path, files: dict, expected: list[str]) -> None:
    path = write(tmp_path, **files)
    with pytest.raises(UsageError) as refusal:
        config.load(path, Toy)
    for part in expected:
        assert part in str(refusal.value) + "\n"


def test_what_a_child_overrides_is_not_blamed_on_the_base(tmp_path: Path) -> None:
    path = write(tmp_path, b="images: x\nrate: -1\n", toy="base: b.yaml\nrate: 0.5\n")
    assert config.load(path, Toy).rate == 0.5
    path.write_text("base: b.yaml\nrate: -2\n")
    with pytest.raises(UsageError, match=r"found -2$"):
        config.load(path, Toy)


def test_changes_go_before_every_file(tmp_path: Path) -> None:
    path = write(tmp_path, b="images: x\nrate: 0.5\n", toy="base: b.yaml\nkind: he\n")
    assert config.load(path, Toy, {"images": "y", "kind": "paper"}) == Toy(images="y", rate=0.5)
    with pytest.raises(UsageError) as refusal:
        config.load(path, Toy, {"rate": -1, "imags": "y"})
    lines = str(refusal.value).splitlines()
    assert len(lines) == 3 and all(line.endswith(" (given beside the file)") for line in lines[1:])
    with pytest.raises(UsageError, match=r"^wrong\.yaml: no such file$"):
        config.load("wrong.yaml", Toy, {"images": "x"})
