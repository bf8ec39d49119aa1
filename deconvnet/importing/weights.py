"""Weights from files, whoever wrote them: read without running code, whole, and renamed where names differ.

What a format can notice of damage is noticed: safetensors has its sizes, ``.npz`` and ``.pt`` the checksums of their
archive (torch itself does not look at them). A changed number in safetensors shows by nothing but a SHA-256.
"""

import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import DeconvnetError, UsageError
from ..files import sha256_of
from ..images import Preprocess

MOST_UNPACKED = 100  # times its own size that an archive may take unpacked; pruned weights take 7 times
WRAPPER = "module."  # what training on several GPUs puts before every name
_LONGEST = 500       # characters of a tensor's name
_MOST_STARS = 3      # in a rule of renaming


@dataclass(frozen=True)
class Trained:
    """Weights, and what is said of them.

    Attributes:
        state: the tensors by name.
        where: their file, for messages.
        classes: the names of the classes; empty if unknown.
        preprocess: how images are made for them; None if unknown.
        reversed: whether they were trained on blue, green, red.
        arguments: with which the network is built.
    """

    state: dict[str, Tensor]
    where: str
    classes: list[str] = field(default_factory=list)
    preprocess: Preprocess | None = None
    reversed: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


# ---- reading ----

def read_weights(file: Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors``, ``.npz``, ``.pt`` or ``.pth`` file: dense tensors on the CPU, by name.

    The ``module.`` that training on several GPUs puts before names is taken off. Nothing in the file is run. Raises
    UsageError for another kind of file, and DeconvnetError, naming the file, for what is cut off, damaged, not a state
    dict, would have to run code, or announces more than it holds.
    """
    ending = file.suffix.lower()
    if ending not in ENDINGS:
        *others, last = ENDINGS
        raise UsageError(f"{file}: weights are {', '.join(others)} or {last} files")
    try:
        state = _without_wrapper(file, _READERS[ending](file))
    except DeconvnetError:
        raise
    except (SafetensorError, OSError, zipfile.BadZipFile) as error:
        raise DeconvnetError(f"{file} cannot be read: {error}. It may be cut off; fetch it again.") from error
    except Exception as error:  # torch.load and numpy raise many kinds
        raise DeconvnetError(f"{file} cannot be read without running code, and was not: {type(error).__name__}. Save a "
                             "state dict (torch.save(net.state_dict(), …)) or a .safetensors file.") from error
    if problems := sorted(_unsound(state)):
        raise DeconvnetError(f"The weights in {file} are not sound:\n  " + "\n  ".join(problems))
    return state


def _read_npz(file: Path) -> dict[str, Tensor]:
    _check_archive(file)
    with np.load(file, allow_pickle=False) as arrays:
        found = {name: np.asarray(arrays[name]) for name in arrays.files}
    return {name: torch.from_numpy(np.array(value, value.dtype.newbyteorder("="))) for name, value in found.items()}


def _read_torch(file: Path) -> dict[str, Tensor]:
    with file.open("rb") as opened:
        zipped = opened.read(4) == b"PK\x03\x04"  # what torch goes by; before 1.6 it wrote a format without checksums
    if zipped:
        _check_archive(file)
    state = torch.load(file, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict", "model"):  # where checkpoints keep it
        state = state.get(key, state) if isinstance(state, dict) else state
    if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
        return {str(name): value for name, value in state.items()}
    raise DeconvnetError(f"{file} holds no state dict (names and tensors), but a {type(state).__name__}.")


def _without_wrapper(file: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the ``module.`` that DataParallel and its kin put before their names."""
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        short = name.removeprefix(WRAPPER)
        if short in named:
            raise DeconvnetError(f"{file} holds {short} twice, with module. before it and without: save one of them.")
        named[short] = value
    return named


def _check_archive(file: Path) -> None:
    """Raises DeconvnetError where a zip archive is damaged, or would unpack to far more than it holds."""
    with zipfile.ZipFile(file) as archive:
        unpacked, size = sum(entry.file_size for entry in archive.infolist()), file.stat().st_size
        if unpacked > MOST_UNPACKED * size:
            raise DeconvnetError(f"{file} announces {unpacked:,} bytes in {size:,}, which no weights do.")
        damaged = archive.testzip()
    if damaged is not None:
        raise DeconvnetError(f"{file} is damaged: the checksum of {damaged!r} in it does not fit. Fetch it again.")


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": load_file, ".npz": _read_npz, ".pt": _read_torch, ".pth": _read_torch}
ENDINGS = tuple(_READERS)  # of files of weights


def _unsound(state: Mapping[str, Tensor]) -> Iterator[str]:
    """What no state dict holds, a line each, whatever the network."""
    for name, value in state.items():
        if len(name) > _LONGEST:
            yield f"no name: {name[:60]}… has {len(name):,} characters"
        elif value.is_nested or value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            yield f"not dense: {name} is sparse, quantized or empty"
        elif _shares_memory(value):
            yield f"misshapen: {name} is {tuple(value.shape)}, and there are not so many numbers in the file"


def _shares_memory(value: Tensor) -> bool:
    """Whether elements of a tensor are one number in memory; in a few bytes it may then seem of any size."""
    repeated = any(stride == 0 and size > 1 for stride, size in zip(value.stride(), value.shape, strict=True))
    return repeated or value.numel() * value.element_size() > value.untyped_storage().nbytes()


def check_sha256(file: Path, expected: str | None, said: Path) -> None:
    """Raises DeconvnetError where a file's SHA-256 is not the expected one, which stands in the file ``said``."""
    if expected and sha256_of(file) != str(expected).lower():
        raise DeconvnetError(f"{file} is damaged, or another: its SHA-256 is not the one in {said}. Fetch it again.")


# ---- names ----

def rename(state: Mapping[str, Tensor], rules: Mapping[str, str | None]) -> dict[str, Tensor]:
    """The tensors under the names that ``rules`` give: theirs → ours, or None for what is left out.

    A ``*`` in theirs stands for any text, and the ``*`` in ours take what those stood for, in order: ``module.*: "*"``,
    ``features.0.*: conv1.*``. A name without one goes first; then the first rule that fits. What no rule fits keeps its
    name. Raises UsageError for a rule that fits nothing, for stars that do not go together, and for two tensors that
    would have one name.
    """
    patterns = {theirs: _pattern(theirs, ours) for theirs, ours in rules.items()}
    used: set[str] = set()
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        rule = name if name in rules else next((t for t, p in patterns.items() if p.fullmatch(name)), None)
        if rule is not None:
            used.add(rule)
        new = name if rule is None else _filled(rules[rule], patterns[rule], name)
        if new in renamed:
            raise UsageError(f"rename: two tensors would be called {new}; one of them is {name}")
        if new is not None:
            renamed[new] = value
    for theirs in rules.keys() - used:
        near = get_close_matches(theirs, state, 1)
        raise UsageError(f"rename: {theirs} fits no tensor"
                         + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(list(state)[:8])} …"))
    return renamed


def _pattern(theirs: str, ours: str | None) -> re.Pattern[str]:
    if theirs.count("*") > _MOST_STARS or (ours or "").count("*") > theirs.count("*"):
        raise UsageError(f"rename: {theirs}: {ours}: at most {_MOST_STARS} stars, and no more in ours than in theirs")
    return re.compile("(.*)".join(re.escape(part) for part in theirs.split("*")))


def _filled(ours: str | None, pattern: re.Pattern[str], name: str) -> str | None:
    """Our name, with what the stars stood for."""
    if ours is None:
        return None
    match = pattern.fullmatch(name)
    stood = iter(match.groups() if match else ())
    return "".join(next(stood) if part == "*" else part for part in re.split(r"(\*)", ours))


# ---- fitting ----

def as_wrapped(wanted: Collection[str], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with ``module.`` before those names that the network itself has in this form alone."""
    return {f"{WRAPPER}{name}" if f"{WRAPPER}{name}" in wanted and name not in wanted else name: value
            for name, value in given.items()}


def misfits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Everything that keeps weights from fitting a network's own, a line each, with the names that come near."""
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    absent, extra = wanted.keys() - given.keys() - optional, given.keys() - wanted.keys()
    missing = [f"missing: {name} {tuple(wanted[name].shape)}{_near(name, wanted[name], extra, given)}"
               for name in absent]
    left = [f"not in the network: {name} {tuple(given[name].shape)}" for name in extra]
    both = sorted(wanted.keys() & given.keys())
    shapes = [f"misshapen: {name} is {tuple(given[name].shape)}, the network's is {tuple(wanted[name].shape)}"
              for name in both if given[name].shape != wanted[name].shape]
    kinds = [f"of another kind: {name} is {_kind(given[name])}, the network's is {_kind(wanted[name])}"
             for name in both if name not in optional
             and given[name].is_floating_point() != wanted[name].is_floating_point()]
    values = [f"not finite: {name} holds NaN or infinity" for name in both
              if given[name].shape == wanted[name].shape and given[name].is_floating_point()
              and not torch.isfinite(given[name].to(wanted[name].dtype)).all()]
    return sorted(missing) + sorted(left) + shapes + kinds + values


def _near(name: str, tensor: Tensor, extra: set[str], given: Mapping[str, Tensor]) -> str:
    """What in the file may be meant: of the same shape, and of a name that comes near."""
    fitting = [other for other in extra if given[other].shape == tensor.shape]
    return near_name(name, fitting) or (f"; is it {fitting[0]}?" if len(fitting) == 1 else "")


def near_name(name: str, others: Iterable[str]) -> str:
    """A question that names what may be meant by a tensor's name; empty where nothing comes near."""
    near = get_close_matches(name, list(others), 1, 0.4)
    return f"; is it {near[0]}?" if near else ""


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
