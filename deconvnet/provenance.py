"""What made a result: command, settings, network, data and versions, by name and hash; never a path, host or user."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .describe import fingerprint
from .errors import DeconvnetError, UsageError
from .images import Images, Preprocess, decoder, open_images
from .models import MODELS
from .network import Network, brings_weights, load_model, offered
from .places import recall, remember
from .shards import there
from .versions import versions


def provenance(command: str, settings: Mapping[str, Any], net: Network, dataset: Images, model: str,
               weights: str | None, images: str) -> dict[str, Any]:
    """Everything that a result depends on, as data for JSON.

    ``settings`` are the options of the command that bear on the result. Of ``model``, ``weights`` and ``images``, as
    the user named them, only the last part of a path is kept; ``reopen`` finds them again by their hashes.
    """
    names = {"model": _name(model), "weights": weights and _name(weights), "images": _name(images)}
    words = {"model": names["model"], "weights": names["weights"], "images": names["images"], **settings}
    options = (f"--{key.replace('_', '-')} {value}" for key, value in words.items() if value is not None)
    preprocess: Any = net.preprocess  # a network of one's own may bring something else
    return {
        "command": f"deconvnet {command} {' '.join(options)}",
        "settings": dict(settings),
        **names,
        "weights_sha256": fingerprint(net),
        "images_sha256": dataset.manifest,
        "preprocess": preprocess.settings() if isinstance(preprocess, Preprocess) else repr(preprocess),
        "decoder": decoder(),
        "versions": versions(),
    }


def note_places(origin: Mapping[str, Any], model: str, weights: str | None, images: str) -> None:
    """Note, for ``reopen``, where this machine has what a result was made from."""
    source, _, function = model.rpartition(":")
    if source.endswith(".py"):
        remember(f"model {origin['weights_sha256']}", f"{Path(source).resolve()}:{function}")
    elif brings_weights(model):
        remember(f"model {origin['weights_sha256']}", str(Path(model).resolve()))
    elif _is_code(model):
        remember(f"model {origin['weights_sha256']}", model)
    for what, path in (("images", images), ("weights", weights)):
        if path is not None and there(path):
            remember(f"{what} {origin[f'{what}_sha256']}", str(Path(path).resolve()))


def reopen(origin: Mapping[str, Any], model: str | None = None, weights: str | None = None,
           images: str | None = None) -> tuple[Network, Images]:
    """The network and the images that a result was made from, where the user says or where they were noted.

    Raises UsageError where something cannot be found, with the option that says where it is, and DeconvnetError where
    what is found is not what the result was made from.
    """
    if not origin.get("images_sha256"):
        raise UsageError("The scan does not say what it was made from, so it was not made by deconvnet scan; "
                         "deconvnet.gallery draws it in Python.")
    images = images or _find(origin, "images", "images_sha256", lambda name: str(name).startswith("builtin:"))
    net = reopen_network(origin, model, weights)
    dataset = open_images(images or "", net.preprocess)
    if dataset.manifest != origin["images_sha256"]:
        raise DeconvnetError(f"The images in {images} are not those of the scan: names or sizes differ. "
                             "Scan again, or say with --images where the images of the scan are.")
    return net, dataset


def reopen_network(origin: Mapping[str, Any], model: str | None = None, weights: str | None = None) -> Network:
    """The network that a result was made with, and its preprocessing; no image is looked for.

    Raises what ``reopen`` does.
    """
    if not origin.get("weights_sha256"):
        raise UsageError("There is no note of the network that this was made with, so it cannot be opened again.")
    model = model or _find(origin, "model", "weights_sha256", lambda name: not _is_code(name))
    weights = weights or _find(origin, "weights", "weights_sha256",
                               lambda name: name in (None, "demo") or name in offered(str(origin["model"])))
    net = load_model(model or "", weights)
    if fingerprint(net) != origin["weights_sha256"]:
        raise DeconvnetError(f"The weights of {_name(model or '')} are not those of the scan. "
                             + ("If they are drawn anew each time, save them, and scan with --weights."
                                if weights is None else "Say with --weights which file the scan was made with."))
    net.preprocess = _preprocess(origin["preprocess"], net.preprocess)
    return net


def _preprocess(settings: Mapping[str, Any], own: Preprocess) -> Preprocess:
    """The preprocessing of the scan; a mean picture is the network's own, which must be the scan's."""
    key = "mean_picture_sha256"
    values = {name: value for name, value in settings.items() if name != key}
    if key not in settings:
        return Preprocess(**values)
    if not isinstance(own, Preprocess) or own.settings().get(key) != settings[key]:
        raise DeconvnetError("The mean picture that the network subtracts is not that of the scan: scan again.")
    return Preprocess(**values, mean_picture=own.mean_picture)


def _find(origin: Mapping[str, Any], what: str, key: str, known: Any) -> str | None:
    name = origin[what]
    if known(name):
        return name
    place = recall(f"{what} {origin[key]}")
    path = place or ""
    if what == "model" and not brings_weights(path):
        path = path.rpartition(":")[0]
    if place is None or ((path.endswith(".py") or brings_weights(path) or what != "model") and not there(path)):
        raise UsageError(f"The scan was made with the {what} {name!r}, and where to find that is not known here: "
                         f"add --{what}.")
    return place


def _is_code(model: Any) -> bool:
    """Whether a model's name means code to be run. Such a name is never taken from a file, which anyone may have made,
    but only from the user or from this machine's own note.
    """
    return model not in MODELS and not str(model).startswith("torchvision:")


def _name(path: str) -> str:
    """The last part of a path; names that are no paths stay as they are."""
    return path if path.startswith(("builtin:", "torchvision:")) else Path(path).resolve().name
