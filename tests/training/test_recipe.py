"""Recipes: the ones that come with the package are recipes, and what cannot be is refused by name."""

from pathlib import Path

import pytest
import torch
from deconvnet.models import MODELS
from pydantic import ValidationError

from deconvnet import config
from deconvnet.network import native_size
from deconvnet.training import Recipe

CONFIGS = Path(__file__).parents[2] / "configs"
OURS = sorted((CONFIGS / "train").rglob("*.yaml"))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_the_recipes_that_come_along_are_valid(path: Path) -> None:
    for data in (None, *sorted((CONFIGS / "data").glob("*.yaml"))):
        changes = {"images": "x", **(config.read(data) if data else {})}
        recipe = config.load(path, Recipe, changes)
        assert recipe.size(recipe.epochs - 1) == native_size(recipe.network)
    with torch.device("meta"):
        assert MODELS[recipe.network](7, **recipe.arguments, batch_norm=recipe.batch_norm)


def test_there_are_recipes() -> None:
    assert len(OURS) >= 2 and (CONFIGS / "train/zfnet_paper.yaml") in OURS


@pytest.mark.parametrize("wrong", [
    {"rate": 0}, {"stages": ()}, {"stages": ({"epochs": 3, "size": 128},)}, {"momentum": 1}, {"init": "xavier"},
    {"batch": 1, "batch_norm": True}, {"ratee": 0.1}, {"min_area": float("nan")},
])
def test_a_recipe_that_cannot_be_is_refused(tree: Path, wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Recipe(images="x", **wrong)


REFUSED = {
    "filters that the network does not have": ({"network": "alexnet", "kernel": 7}, "alexnet has no kernel"),
    "stride": ({"network": "alexnet_dense", "stride": 2}, "alexnet_dense has no stride"),
    "widths": ({"network": "alexnet", "widths": (1, 2, 3, 4, 5)}, "alexnet has no widths"),
    "four widths": ({"widths": (1, 2, 3, 4)}, "widths"),
    "a layer that cannot be left out": ({"without": (1, 3)}, r"without: .* not \[1\]"),
    "a layer that the classifier needs": ({"without": (2, 5)}, r"without: .* not \[2, 5\]"),
    "a layer of AlexNet": ({"network": "alexnet", "without": (5,)}, r"without: .* not \[5\]"),
    "filters that the maps do not fit": ({"kernel": 4}, "kernel"),
    "an odd stride": ({"stride": 3}, "stride"),
    "three hidden layers": ({"hidden": (4, 4, 4)}, "hidden"),
    "last size": ({"stages": ({"epochs": 3}, {"epochs": 3, "size": 128})}, "stages: .* views of 224, .* it has 128"),
    "AlexNet's last size": ({"network": "alexnet", "stages": ({"epochs": 3, "size": 224},)}, "stages: .* views of 227"),
    "snapshots": ({"stages": ({"epochs": 3}, {"epochs": 4}), "snapshots": (7, 9, 8)}, "snapshots: there is no epoch 9"),
    "drops": ({"stages": ({"epochs": 3},), "drops": (4,)}, "drops: there is no epoch 4"),
    "snapshots from 1": ({"snapshots": (0,)}, "snapshots"),
    "mean picture": ({"mean": "pixel", "views": "random"}, "mean: pixel needs views: ten"),
    "batch": ({"batch": 1, "batch_norm": True}, "batch_norm: true needs a batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_by_the_name_of_its_key(tmp_path: Path, name: str) -> None:
    wrong, message = REFUSED[name]
    with pytest.raises(ValidationError, match=message):
        Recipe(images="x", **wrong)


def test_what_is_just_possible_is_taken() -> None:
    Recipe(images="x", stages=({"epochs": 3},), snapshots=(1, 3), drops=(3,), without=(4, 3), hidden=(), kernel=5)
    Recipe(images="x", network="alexnet", stages=({"epochs": 3, "size": 227},), without=(3, 4), norm=False)
    Recipe(images="x", mean="pixel", network="zfnet_wide", stride=4, kernel=11)


def test_the_identity_leaves_out_only_what_changes_no_bits() -> None:
    recipe = Recipe(images="x")
    left_out = {"workers", "memory", "downloads", "minutes"} | {"images", "held_out"}  # these by content: the manifest
    assert set(Recipe.model_fields) - set(recipe.told()) == left_out
    assert set(recipe.told()) - set(recipe.identity()) == {"snapshots", "small_snapshots", "test", "measure"}
    assert "measure" in Recipe(images="x", schedule="plateau").identity()  # there it decides when the rate falls
    for change in ({"images": "y"}, {"held_out": "z"}, {"workers": 3}, {"memory": 0}, {"downloads": "d"},
                   {"minutes": 1}, {"snapshots": (1,)}, {"test": "ten"}, {"measure": 2}):
        assert Recipe(**{"images": "x", **change}).identity() == recipe.identity()
    for change in ({"seed": 1}, {"train_per_class": None}, {"test_per_class": 3}, {"precision": "bfloat16"},
                   {"patience": 9}, {"colour": 0.1}, {"stages": ({"epochs": 70, "rate": 0.5},)}):
        assert Recipe(images="x", **change).identity() != recipe.identity(), change
