"""Every figure and table: its configuration is what it does by default, and there is one for each."""

from pathlib import Path

import pytest

from deconvnet import figures, tables
from deconvnet.commands.paper import settings_from
from deconvnet.config import load
from deconvnet.errors import UsageError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("number", figures.FIGURES)
def test_the_configuration_of_a_figure_says_what_it_does_by_default(number: str) -> None:
    name = f"figure{number}" if number.isdigit() else number
    kind = figures.settings(number)
    assert load(CONFIGS / "figures" / f"{name}.yaml", kind) == kind()


@pytest.mark.parametrize("number", tables.TABLES)
def test_the_configuration_of_a_table_says_what_it_does_by_default(number: str) -> None:
    kind = tables.settings(number)
    assert load(CONFIGS / "tables" / f"table{number}.yaml", kind) == kind()


def test_a_figure_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no figure 10; there are 1, 2"):
        figures.settings("10")


def test_another_network_does_not_keep_the_weights_of_the_default() -> None:
    chosen = settings_from(figures.settings("2"), None, {"model": "alexnet", "weights": None, "images": None})
    assert (chosen.model, chosen.weights) == ("alexnet", None)
