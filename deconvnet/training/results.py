"""What a run gives: weights that ``load_model`` takes, with a card beside them; and snapshots of the way there."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from ..files import write_whole
from ..importing.card import MEAN_PICTURE
from ..processes import Here
from ..provenance import versions
from .build import fold
from .evaluate import evaluate
from .filters import filter_statistics
from .run import Run


def write_weights(run: Run, path: Path, progress: bool = False) -> dict[str, Any]:
    """The card beside the weights, having written both: the folded network in half precision, and JSON.

    The accuracy is measured on the weights as they are written.
    """
    recipe, data = run.recipe, run.data
    net = fold(run.net, recipe)
    halves = _halves(net.state_dict())
    net.load_state_dict({name: value.float() for name, value in halves.items()})
    card = _card(run, {"classes": len(data.classes), **recipe.arguments})
    card["filters"] = filter_statistics(net.get_parameter("conv1.weight"))
    measure = partial(evaluate, net.to(run.here.device).to(memory_format=torch.channels_last), data.held_out,
                      run.preprocess, workers=recipe.workers, here=Here(device=run.here.device), progress=progress)
    card["held_out"] = {"images": len(data.held_out), **measure()}
    if recipe.test == "ten":
        card["held_out_ten_views"] = measure(ten=True, means=run.means(run.preprocess.size))
    card["unreadable"] = len(data.unreadable)
    _write(path, {**halves, **_mean_picture(run)}, card)
    return card


def write_snapshot(run: Run, folder: Path) -> None:
    """Puts the network as it is into the folder, as ``epoch-05.safetensors`` with a card.

    It is the whole of it in half precision; with the recipe's ``small_snapshots``, the convolutions alone, in bytes.
    """
    state = fold(run.net, run.recipe).state_dict()
    arguments = {"classes": len(run.data.classes), **run.recipe.arguments}
    if run.recipe.small_snapshots:
        arguments["hidden"] = None
        tensors = bytewise({name: value for name, value in state.items() if name.startswith("conv")})
    else:
        tensors = _halves(state)
    folder.mkdir(exist_ok=True)
    card = {**_card(run, arguments), "epoch": run.done}
    _write(folder / f"epoch-{run.done:02}.safetensors", {**tensors, **_mean_picture(run)}, card)


def _mean_picture(run: Run) -> dict[str, Tensor]:
    """What preprocessing subtracts, where that is a picture: too much for a card."""
    picture = run.preprocess.mean_picture
    return {} if picture is None else {MEAN_PICTURE: torch.from_numpy(picture)}


def _halves(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half().contiguous() for name, value in state.items()}


def bytewise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as int8 with a scale (units,) for each unit, ``NAME_scale``; biases in half precision."""
    tensors = {}
    for name, value in state.items():
        if value.ndim == 1:
            tensors[name] = value.half()
            continue
        scale = value.flatten(1).abs().amax(1).clamp_min(1e-12) / 127            # (units,)
        steps = value / scale.view(-1, *[1] * (value.ndim - 1))
        tensors[name], tensors[f"{name}_scale"] = steps.round().to(torch.int8).contiguous(), scale.float()
    return tensors


def _card(run: Run, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "network": run.recipe.network,
        "arguments": arguments,
        "classes": run.data.classes,
        "preprocess": run.preprocess.settings(),
        "images_sha256": run.data.manifest,
        "recipe": run.recipe.told(),
        "versions": versions(),
    }


def _write(path: Path, tensors: dict[str, Tensor], card: dict[str, Any]) -> None:
    content = to_bytes(tensors)
    card = {**card, "sha256": hashlib.sha256(content).hexdigest()}
    write_whole(path, content)
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    # a folder's name need not be valid UTF-8; what then stands for a byte of it is escaped as JSON escapes it
    write_whole(path.with_suffix(".json"), text.encode("utf-8", "backslashreplace"))
