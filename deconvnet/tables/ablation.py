"""Table 3: what each part of the network is worth, from a folder of finished training runs, one for each variant."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ..errors import DeconvnetError, UsageError
from ..exhibit import Row, Table
from ..network import load_model
from ..provenance import versions
from ..settings import Part
from ..training.data import split
from ..training.evaluate import evaluate
from ..training.recipe import Recipe

PAPER: dict[str, tuple[str, float, float, float]] = {  # configuration: words; train top-1, validation top-1 and top-5
    "alexnet": ("replica of Krizhevsky et al.", 35.1, 40.5, 18.1),
    "alexnet_without_3_4": ("without layers 3, 4", 41.8, 45.4, 22.1),
    "alexnet_without_7": ("without layer 7", 27.4, 40.0, 18.4),
    "alexnet_without_6_7": ("without layers 6, 7", 27.4, 44.8, 22.4),
    "alexnet_without_3_4_6_7": ("without layers 3, 4, 6, 7", 71.1, 71.3, 50.1),
    "alexnet_2048": ("layers 6, 7 of 2048 units", 40.3, 41.7, 18.8),
    "alexnet_8192": ("layers 6, 7 of 8192 units", 26.8, 40.0, 18.1),
    "zfnet": ("the paper's network (Figure 3)", 33.1, 38.4, 16.5),
    "zfnet_2048": ("Figure 3, layers 6, 7 of 2048 units", 38.2, 40.2, 17.6),
    "zfnet_8192": ("Figure 3, layers 6, 7 of 8192 units", 22.0, 38.8, 17.0),
    "zfnet_wide": ("Figure 3, layers 3, 4, 5 of 512, 1024, 512 maps", 18.8, 37.5, 16.0),
    "zfnet_wide_8192": ("Figure 3, both", 10.0, 38.3, 16.9),
}


class Settings(Part):
    """Where the runs and their configurations are."""

    runs: Annotated[str, Field(min_length=1, description=(
        "folder of runs, each in a folder called as its configuration: deconvnet train --out RUNS/NAME"))] = "runs"
    configs: Annotated[str, Field(min_length=1, description=(
        "folder of configurations, a row each; those of the paper's rows need not be there"))] = "configs/train/table3"
    images: Annotated[str | None, Field(min_length=1, description=(
        "where the runs' images lie now, to measure the training error on; none: that column stays empty"))] = None


@dataclass(frozen=True)
class Run:
    """What a finished run reached: errors in percent, None where they are not known."""

    name: str
    card: Mapping[str, Any]
    train: float | None = None

    def error(self, key: str) -> float | None:
        """The held-out error, over ten views where they were measured."""
        held_out = self.card.get("held_out_ten_views") or self.card.get("held_out") or {}
        return 100 * (1 - held_out[key]) if key in held_out else None


def make(settings: Settings, progress: bool = True) -> Table:
    """The table of all rows; those without a finished run are empty, and say which command would fill them."""
    names = _names(Path(settings.configs))
    runs = [_run(settings, name, progress) for name in names]
    rows = [_row(run, settings) for run in runs]
    heads = ["change", "train top-1, %", "top-1, %", "top-5, %", "paper: train top-1, %", "paper: top-1, %",
             "paper: top-5, %", "run, or what makes it"]
    done = [run for run in runs if run.card]
    origin = {"command": "deconvnet table 3", "settings": {"images": settings.images and Path(settings.images).name},
              "versions": versions(), "runs": {run.name: _about(run) for run in done}}
    return Table(heads, rows, _caption(done, len(runs)), origin)


def _names(configs: Path) -> list[str]:
    """The configurations' names: the paper's rows in its order, then any others."""
    found = {file.stem for file in configs.glob("*.yaml")}
    return [*PAPER, *sorted(found - set(PAPER))]


def _run(settings: Settings, name: str, progress: bool) -> Run:
    file = Path(settings.runs) / name / "weights.json"
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Run(name, {})
    except (OSError, ValueError) as error:
        raise DeconvnetError(f"{file} cannot be read: {error}") from error
    if not isinstance(card, dict) or not isinstance(card.get("recipe"), dict):
        raise DeconvnetError(f"{file} is not a card that deconvnet train wrote")
    return Run(name, card, _train_error(settings, card, file, progress) if settings.images else None)


def _train_error(settings: Settings, card: Mapping[str, Any], file: Path, progress: bool) -> float | None:
    """The top-1 error in percent on the images that the run learned from, one central view each, mean of classes."""
    recipe = Recipe.model_validate({**card["recipe"], "images": settings.images})
    data = split(recipe)
    if data.manifest != card.get("images_sha256", data.manifest):
        raise UsageError(f"images: {settings.images} holds other images than those of {file.parent}")
    net = load_model(card["network"], file.with_suffix(".safetensors"))
    return 100 * (1 - evaluate(net, data.train, net.preprocess, progress=progress)["top1"])


def _row(run: Run, settings: Settings) -> Row:
    words, *paper = PAPER.get(run.name, (run.name.replace("_", " "), None, None, None))
    config = Path(settings.configs) / f"{run.name}.yaml"
    command = f"deconvnet train --config {_last(config)} --out {_last(Path(settings.runs))}/{run.name}"
    ours = [run.train, run.error("top1"), run.error("top5")]
    return [words, *ours, *paper, run.name if run.card else command]


def _last(path: Path) -> str:
    """A path as it was named if it is relative; else without the folders that are nobody's business."""
    return path.name if path.is_absolute() else path.as_posix()


def _about(run: Run) -> dict[str, Any]:
    return {key: run.card.get(key) for key in ("sha256", "images_sha256", "recipe")}


def _caption(done: list[Run], total: int) -> str:
    if not done:
        return (f"Table 3: errors; none of the {total} variants has been trained here; the last column has the "
                "commands. The paper's errors are those on ImageNet 2012.")
    return (f"Table 3: errors of {len(done)} of {total} variants, as their runs measured them on held-out images, mean "
            f"of the classes{'; '.join(['', *_differences(done)])}. Training errors are of one central view an image. "
            "Empty rows have not been trained here; the last column has the command. The paper's errors are those on "
            "ImageNet 2012, so that only the order of the rows can be compared.")


def _differences(done: list[Run]) -> Iterator[str]:
    """What a reader must know before comparing the rows with one another."""
    if len({run.card.get("images_sha256") for run in done}) > 1:
        yield "NOT all on the same images"
    ten = sum("held_out_ten_views" in run.card for run in done)
    yield "ten views an image" if ten == len(done) else "one central view an image" if not ten else \
        "some of ten views an image and some of one"
