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
