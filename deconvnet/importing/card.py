"""Weights as this project writes them: a file of tensors, and beside it a card, a JSON that says what they are.

A card may have the keys ``classes``, ``preprocess`` (those of ``Preprocess``), ``arguments`` (with which the network is
built) and ``sha256``; what else stands there, such as data, licence and accuracy, is for people.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DeconvnetError, UsageError
from ..images import Preprocess
from .weights import Trained, check_sha256, read_weights

MEAN_PICTURE = "preprocess.mean_picture"  # among the tensors, where training subtracted one


def read_with_card(file: Path) -> Trained:
    """The weights in a file, and what the card beside it says of them.

    Raises what ``read_weights`` and ``read_card`` raise, and DeconvnetError, naming the card, where it has a
    preprocessing that makes no sense.
    """
    card = read_card(file)
    state = in_floats(read_weights(file))
    picture = state.pop(MEAN_PICTURE, None)
    try:
        preprocess = _preprocess(card, picture)
    except (TypeError, ValueError, AttributeError, UsageError) as error:
        raise DeconvnetError(f"{_beside(file)}: preprocess cannot be read: {error}") from error
    return Trained(state, str(file), card.get("classes", []), preprocess, arguments=card.get("arguments", {}))


def read_card(file: Path) -> dict[str, Any]:
    """What is said beside a weights file, in the ``.json`` of the same name; nothing if there is none.

    Raises DeconvnetError, naming the card, where that is no JSON object, where ``classes`` or ``arguments`` are not
    what they must be, and where the SHA-256 that it says is not the file's.
    """
    beside = _beside(file)
    if beside is None:
        return {}
    try:
        card = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DeconvnetError(f"{beside} is not JSON: {error}") from error
    except OSError as error:
        raise DeconvnetError(f"{beside} cannot be read: {error.strerror}") from error
    if not isinstance(card, dict):
        raise DeconvnetError(f"{beside} must hold a JSON object.")
    classes = card.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise DeconvnetError(f"{beside}: classes must be a list of names.")
    if not isinstance(card.get("arguments", {}), dict):
        raise DeconvnetError(f"{beside}: arguments must be an object, the network's by their names.")
    check_sha256(file, card.get("sha256"), beside)
    return card


def _beside(file: Path) -> Path | None:
    """The card of a weights file; None where there is none."""
    return next((place for ending in (".json", ".JSON") if (place := file.with_suffix(ending)).is_file()), None)


def _preprocess(card: Mapping[str, Any], picture: Tensor | None) -> Preprocess | None:
    if "preprocess" not in card:
        return None
    values = dict(card["preprocess"])
    expected = values.pop("mean_picture_sha256", None)
    found = Preprocess(**values, mean_picture=None if picture is None else picture.float().numpy())
    if expected not in (None, found.settings().get("mean_picture_sha256")):
        raise UsageError("the mean picture that it speaks of is not in the file of the weights")
    return found


def in_floats(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a byte each times the scale of their unit, which lies beside them as ``NAME_scale``."""
    bytewise = [name for name, value in state.items() if value.dtype == torch.int8 and f"{name}_scale" in state]
    floats = {name: state[name].float() * state[f"{name}_scale"].view(-1, *[1] * (state[name].ndim - 1))
              for name in bytewise}
    scales = {f"{name}_scale" for name in bytewise}
    return {name: floats.get(name, value) for name, value in state.items() if name not in scales}
