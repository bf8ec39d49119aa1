"""What a scan found, by layer and unit, and the file that holds it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import gcd
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import DeconvnetError, UsageError
from .files import sole_writer, write_whole
from .sample import Sample
from .sealed import Damaged, seal, unseal
from .topk import Found, TopK
from .watching import count_calls, resolve

ALWAYS = 0.99  # a unit that fires in at least this share of the images tells them apart badly
GRAIN = 2.0 ** 24  # activations are summed in parts of this: exactly, in any order, up to 2^29 = 537 million
CLASSES = 1 << 16  # numbers of classes without names lie below: for each a scan keeps a number of every unit


@dataclass
class LayerScan:
    """What a scan knows of one layer with U units.

    Attributes:
        top: the strongest activations; ``values``, ``images`` and ``positions`` are its fields.
        fired: in how many images each unit fires, that is, has an activation above zero (U,) int64.
        class_sums: for each class the sum over its images of each unit's strongest activation (classes, U) float64;
            rounded to a multiple of 2⁻²⁴ = 6e-8 first, so that the sums are the same bits in any order of the images.
        class_counts: images of each class (classes,) int64.
        sample: how strongly each unit answers to an even sample of the images.
        count: images seen.
    """

    top: TopK
    fired: Tensor
    class_sums: Tensor
    class_counts: Tensor
    sample: Sample
    count: int = 0

    def __repr__(self) -> str:
        return (f"LayerScan of {len(self.fired)} units, the {self.values.shape[1]} strongest activations of each of "
                f"{self.count} images; {int(self.dead.sum())} units are dead")

    @classmethod
    def blank(cls, units: int, k: int, dtype: torch.dtype = torch.float32, classes: int = 0) -> "LayerScan":
        """A layer of which no image has been seen."""
        sums = torch.zeros(classes, units, dtype=torch.float64)
        return cls(TopK(units, k, dtype), torch.zeros(units, dtype=torch.int64), sums, torch.zeros(classes).long(),
                   Sample.blank(units, dtype))

    @property
    def values(self) -> Tensor:
        """The strongest activations (U, k), descending; 0 where there are fewer than k."""
        return self.top.values

    @property
    def images(self) -> Tensor:
        """The index of the image of each (U, k) int64; −1 where there are fewer than k."""
        return self.top.images

    @property
    def positions(self) -> Tensor:
        """Where in the feature map each is, (y, x), (U, k, 2) int64; −1 where there are fewer than k."""
        return self.top.positions

    @property
    def maximum(self) -> Tensor:
        """The strongest activation of each unit (U,); 0 if it never fires."""
        return self.top.values[:, 0]

    @property
    def fires(self) -> Tensor:
        """The share of the images in which each unit fires (U,) float32, 0..1."""
        return (self.fired.double() / max(self.count, 1)).float()

    @property
    def dead(self) -> Tensor:
        """The units that fire in no image (D,) int64."""
        return (self.fired == 0).nonzero()[:, 0]

    @property
    def always(self) -> Tensor:
        """The units that fire in at least 99 % of the images (A,) int64: they tell images apart badly."""
        return (self.fired >= max(ALWAYS * self.count, 1)).nonzero()[:, 0]

    @property
    def class_means(self) -> Tensor:
        """For each class the mean over its images of each unit's strongest activation (classes, U) float32.

        An image in which the unit does not fire counts as 0. A class without images has a row of zeros.
        """
        return (self.class_sums / self.class_counts.clamp(min=1)[:, None]).float()

    @property
    def preferred(self) -> Tensor:
        """The class with the highest of the class means, for each unit (U,) int64; −1 if there is none above zero."""
        if not len(self.class_sums):
            return torch.full_like(self.fired, -1)
        means = self.class_sums / self.class_counts.clamp(min=1)[:, None]  # (classes, U)
        return torch.where(means.amax(0) > 0, means.argmax(0), -1)

    @property
    def selectivity(self) -> Tensor:
        """How far each unit prefers one class, 0 (all alike) to 1 (fires for one class only), (U,) float32.

        (μ_max − μ_rest) / (μ_max + μ_rest): the highest class mean against the mean of the other class means (Morcos et
        al. 2018, "On the importance of single directions for generalization"). 0 for a dead unit, and for all units
        where fewer than two classes have images.
        """
        seen = self.class_counts > 0  # (classes,)
        if seen.sum() < 2:
            return torch.zeros(len(self.fired))
        means = self.class_sums[seen] / self.class_counts[seen, None]  # (seen classes, U)
        highest = means.amax(0)  # (U,)
        rest = (means.sum(0) - highest) / (len(means) - 1)
        return torch.where(highest > 0, (highest - rest) / (highest + rest), 0.0).float()

    def keep(self, found: Found, images: Tensor, labels: Tensor) -> None:
        """Take in what was found in a batch, of whose images (N,) are the indices and the classes, −1 for none."""
        strongest = found.maxima.clamp(min=0) + 0.0  # (N, U); −0, which is other bits, becomes 0
        self.top.keep(found)
        self.sample.keep(images, strongest)
        self.count += len(strongest)
        self.fired += (strongest > 0).sum(0)
        self._widen(int(labels.max()) + 1)
        known = labels >= 0  # (N,)
        self.class_sums.index_add_(0, labels[known], (strongest[known].double() * GRAIN).round() / GRAIN)
        self.class_counts += torch.bincount(labels[known], minlength=len(self.class_counts))

    def merge(self, other: "LayerScan") -> "LayerScan":
        """The two together, seen over different images."""
        both = LayerScan(TopK.from_state(self.top.state()), self.fired + other.fired, self.class_sums.clone(),
                         self.class_counts.clone(), self.sample.merge(other.sample), self.count + other.count)
        both.top.merge(other.top)
        both._widen(len(other.class_sums))
        both.class_sums[:len(other.class_sums)] += other.class_sums
        both.class_counts[:len(other.class_counts)] += other.class_counts
        return both

    def _widen(self, classes: int) -> None:
        more = max(classes - len(self.class_sums), 0)
        self.class_sums = torch.cat([self.class_sums, self.class_sums.new_zeros(more, self.class_sums.shape[1])])
        self.class_counts = torch.cat([self.class_counts, self.class_counts.new_zeros(more)])

    def _state(self) -> dict[str, Tensor]:
        rest = {"fired": self.fired, "class_sums": self.class_sums, "class_counts": self.class_counts,
                "sample_images": self.sample.images, "sample_maxima": self.sample.maxima}
        return self.top.state() | rest


@dataclass(eq=False, repr=False)
class Scan(Mapping[str, LayerScan]):
    """What a scan found, by layer: ``top["conv5"].values``.

    Attributes:
        layers: a LayerScan for each layer, in the order of the network.
        k: activations kept of each unit.
        per_image: positions of one image that may be among them.
        count: images seen, without those that could not be read.
        files: names of the images by index, if the images came with names.
        classes: names of the classes by label, if they came with names.
        labels: the class of each image, −1 for none, if they came as a list.
        unreadable: (name, reason) of the images that could not be read, by index.
        shards: the parts (rank, world) of the images that were gone through: image i is in part i mod world.
        provenance: what the caller said about network and images.
        weights: of a part, the SHA-256 of the network's weights, so that parts of different networks are told apart
            whatever the caller said; empty where all parts are together.
    """

    layers: dict[str, LayerScan]
    k: int = 9
    per_image: int = 1
    count: int = 0
    files: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    unreadable: dict[int, tuple[str, str]] = field(default_factory=dict)
    shards: list[tuple[int, int]] = field(default_factory=lambda: [(0, 1)])
    provenance: dict[str, Any] = field(default_factory=dict)
    weights: str = ""

    def __getitem__(self, layer: str) -> LayerScan:
        if layer not in self.layers:
            resolve(layer, count_calls(self.layers))  # says what there is, or which calls
            raise UsageError(f"{layer!r} is not in this scan, which holds: {', '.join(self.layers)}")
        return self.layers[layer]

    def __contains__(self, layer: object) -> bool:
        return layer in self.layers

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return f"Scan of {self.count} images: " + ", ".join(f"{n} ({len(s.fired)})" for n, s in self.layers.items())

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Name and reason of each image that could not be read, in the order of the images."""
        return [self.unreadable[index] for index in sorted(self.unreadable)]

    def merge(self, other: "Scan") -> "Scan":
        """Both together: scans of different shards of the same images by the same network.

        All shards merged, in any order, equal one pass to the last bit, as far as the network computes the same for
        each. Raises UsageError where the scans do not belong together or hold the same images.
        """
        self._check_alike(other)
        layers = dict(self.layers or other.layers)
        for name in layers if self.layers and other.layers else ():
            layers[name] = self.layers[name].merge(other.layers[name])
        shards, weights = sorted(self.shards + other.shards), self.weights
        if shards == [(rank, len(shards)) for rank in range(len(shards))]:
            shards, weights = [(0, 1)], ""
        unreadable = dict(sorted((self.unreadable | other.unreadable).items()))
        return Scan(layers, self.k, self.per_image, self.count + other.count, self.files, self.classes, self.labels,
                    unreadable, shards, self.provenance, weights)

    def save(self, path: str | Path) -> None:
        """Write the scan to a file, for ``read_scan``: beside it first, then in its place, so it is whole or not there.

        Raises DeconvnetError where that is not possible, or where another process has the file.
        """
        with sole_writer(Path(path)):
            self.write(Path(path))

    def write(self, path: Path) -> None:
        """The same, by whoever is the ``sole_writer`` of the file already."""
        write_whole(path, encode(self))

    def _check_alike(self, other: "Scan") -> None:
        keys = ["k", "per_image", "files", "classes", "labels", "provenance"]
        if (0, 1) not in self.shards + other.shards:  # where all parts are together nothing is said of the weights
            keys.append("weights")
        differ = [key for key in keys if getattr(self, key) != getattr(other, key)]
        if self.layers and other.layers and list(self.layers) != list(other.layers):
            differ.append("layers")
        if differ:
            raise UsageError(f"These scans do not belong together: {', '.join(differ)} differ. Parts are of one "
                             "network, one set of images and one k")
        for rank, world in self.shards:
            for rank2, world2 in other.shards:
                if (rank - rank2) % gcd(world, world2) == 0:
                    raise UsageError(f"Both scans hold the same images: part {rank} of {world}, {rank2} of {world2}")


# ---- the file ----

_FORMAT = 2  # 2: with the sample


def read_scan(path: str | Path) -> Scan:
    """The scan in a file that ``Scan.save`` wrote.

    Raises DeconvnetError, naming the file and what to do, where there is no such file, or it is something else, cut off
    or changed by as little as a bit.
    """
    return decode(read_bytes(Path(path)), path)[0]


def encode(scan: Scan, **more: Any) -> bytes:
    """A scan as a safetensors file; the same scan gives the same bytes. The SHA-256 is that of the rest of the file."""
    tensors = {f"{name}.{key}": t.contiguous() for name, s in scan.layers.items() for key, t in s._state().items()}
    lists = {"files": scan.files, "classes": scan.classes, "labels": scan.labels,
             "unreadable": [(number, *why) for number, why in scan.unreadable.items()]}
    text = json.dumps(lists).encode("ascii")  # any name fits: what is not ASCII, or not even text, is escaped
    tensors["lists"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    about = {"format": _FORMAT, "layers": list(scan.layers), "k": scan.k, "per_image": scan.per_image,
             "count": scan.count, "shards": scan.shards, "provenance": scan.provenance, **more}
    if scan.weights:
        about["weights"] = scan.weights
    return seal(tensors, about)


def decode(data: bytes, path: str | Path) -> tuple[Scan, dict[str, Any]]:
    """The scan in the bytes of a file, and all that its header says."""
    try:
        tensors, about = unseal(data)
    except Damaged as error:
        raise DeconvnetError(f"{path} is not a scan, or is damaged or cut off ({error}): give a file that deconvnet "
                             "scan wrote, copy it again from where it came, or repeat the scan") from error
    if about.get("format") != _FORMAT:
        raise DeconvnetError(f"{path} has format {about.get('format')}, and this version reads {_FORMAT}: install the "
                             "version of deconvnet that wrote it, or repeat the scan")
    lists = json.loads(tensors["lists"].numpy().tobytes())

    def layer(name: str) -> LayerScan:
        part = {key: tensors[f"{name}.{key}"] for key in ("values", "images", "positions")}
        fired, sums, counts = (tensors[f"{name}.{key}"] for key in ("fired", "class_sums", "class_counts"))
        sample = Sample(tensors[f"{name}.sample_images"], tensors[f"{name}.sample_maxima"])
        return LayerScan(TopK.from_state(part), fired, sums, counts, sample, about["count"])

    unreadable = {number: (name, reason) for number, name, reason in lists["unreadable"]}
    return Scan({name: layer(name) for name in about["layers"]}, about["k"], about["per_image"], about["count"],
                lists["files"], lists["classes"], lists["labels"], unreadable,
                [(rank, world) for rank, world in about["shards"]], about["provenance"],
                about.get("weights", "")), about


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises DeconvnetError, naming it, where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeconvnetError(f"{path} cannot be read: {error.strerror or error}. Give a file that deconvnet scan wrote"
                             ) from error
