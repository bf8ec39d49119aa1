"""Recipes: what cannot be is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from deconvnet.training import Recipe


@pytest.mark.parametrize("wrong", [
    {"rate": 0}, {"stages": ()}, {"stages": ({"epochs": 3, "size": 128},)}, {"momentum": 1}, {"init": "xavier"},
    {"batch": 1, "batch_norm": True}, {"ratee": 0.1}, {"min_area": float("nan")},
])
def test_a_recipe_that_cannot_be_is_refused(tree: Path, wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Recipe(images="x", **wrong)
