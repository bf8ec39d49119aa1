"""scan against a full sort of all activations, and everything that must not change its result."""

import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from contextlib import suppress
from functools import reduce
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import mean_maximum_by_class, sorted_activations
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from deconvnet.contrast import local_response_norm
from deconvnet.errors import DeconvnetError, UnreadableImage, UsageError
from deconvnet.resume import fingerprint_of
from deconvnet.scan import blank_scan, scan
from deconvnet.scanned import LayerScan, Scan, read_scan
from deconvnet.tape import record
from deconvnet.topk import TopK

pytestmark = pytest.mark.usefixtures("one_thread")


def identity(channels=3):
    """A network whose conv1 puts out the images: so the tests know the activations."""
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.eye_(conv.weight.data.view(channels, channels))
    return nn.Sequential(OrderedDict(conv1=conv, relu1=nn.ReLU(inplace=True))).eval()


def small_net():
    """Convolutions, in-place ReLU, a residual sum in place, a ReLU used twice, and linear layers."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)
            self.fc = nn.Linear(5, 4)

        def forward(self, x):
            x = self.relu(self.conv1(x))
            y = self.conv2(x)
            y += x
            return self.fc(self.relu(y).mean((2, 3)))

    torch.manual_seed(0)
    return Net().eval()


def tied_images(n, seed=0, size=(3, 4)):
    """Images (n, 3, *size) of few small integers: most activations are tied, many are not positive."""
    return torch.randint(-1, 3, (n, 3, *size), generator=torch.Generator().manual_seed(seed)).float()


class Pictures(Dataset):
    """Images and labels by number; those listed as broken cannot be read, and one may be interrupted by Ctrl-C."""

    def __init__(self, images, labels=None, broken=(), files=None):
        self.images, self.targets, self.broken, self.interrupt = images, labels, broken, None
        if files is not None:
            self.files = files

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index == self.interrupt:
            raise KeyboardInterrupt
        if index in self.broken:
            raise UnreadableImage(f"bad{index}.jpg", "an empty file")
        return self.images[index] if self.targets is None else (self.images[index], self.targets[index])


def entries(layer):
    """What a LayerScan holds, in the form of the oracle."""
    return [[(v.item(), i.item(), tuple(p.tolist())) for v, i, p in zip(*unit, strict=True) if i >= 0]
            for unit in zip(layer.values, layer.images, layer.positions, strict=True)]


def contents(top, tmp_path):
    """The file of a scan: two scans are the same if their files are, byte for byte."""
    top.save(tmp_path / "contents")
    return (tmp_path / "contents").read_bytes()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- the same as a full sort ----


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 30), st.integers(1, 12), st.integers(1, 5), st.integers(1, 9))
def test_equals_a_full_sort_from_any_source(data, n, k, per_image, batch_size):
    images = tied_images(n, data.draw(st.integers(0, 99)))
    cuts = sorted(data.draw(st.sets(st.integers(0, n), max_size=3)) | {0, n})
    sources = [images, Pictures(images), [images[a:b] for a, b in pairwise(cuts)], iter(images)]
    expected = sorted_activations(images, range(n), k, per_image)
    for source in sources:
        top = scan(identity(), source, k=k, per_image=per_image, batch_size=batch_size)
        assert list(top) == ["conv1"] and top.count == n
        assert entries(top["conv1"]) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_keep_the_order(workers, tmp_path):
    images = tied_images(23)
    top = scan(identity(), Pictures(images, [i % 3 for i in range(23)], broken=(4,)), batch_size=4, workers=workers)
    one = scan(identity(), Pictures(images, [i % 3 for i in range(23)], broken=(4,)), batch_size=4)
    assert contents(top, tmp_path) == contents(one, tmp_path)
    kept = [i for i in range(23) if i != 4]
    assert entries(top["conv1"]) == sorted_activations(images[kept], kept, 9)


def test_the_caller_s_random_numbers_stay_as_they_are():
    net = identity()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    scan(net, tied_images(5))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("world", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("indexed", [True, False])
def test_merged_shards_equal_one_pass(world, indexed, tmp_path):
    images, labels = tied_images(23), [i % 3 for i in range(23)]

    def source():
        if indexed:
            return Pictures(images, labels, broken=(2, 5, 17))
        return [(images[i:i + 7], torch.tensor(labels[i:i + 7])) for i in range(0, 23, 7)]

    shards = [scan(identity(), source(), batch_size=3, shard=(rank, world)) for rank in range(world)]
    for order in (shards, shards[::-1]):
        merged = reduce(Scan.merge, order)
        assert contents(merged, tmp_path) == contents(scan(identity(), source(), batch_size=3), tmp_path)


def test_merge_refuses_what_does_not_belong_together():
    images = tied_images(6)
    first = scan(identity(), images, shard=(0, 2))
    with pytest.raises(UsageError, match="same images"):
        first.merge(first)
    with pytest.raises(UsageError, match="same images"):
        first.merge(scan(identity(), images, shard=(2, 4)))
    with pytest.raises(UsageError, match="same images"):
        scan(identity(), images).merge(first)
    with pytest.raises(UsageError, match="k, provenance differ"):
        first.merge(scan(identity(), images, k=3, provenance={"model": "b"}, shard=(1, 2)))
    with pytest.raises(UsageError, match="layers differ"):
        first.merge(scan(identity(), images, layers=["relu1"], shard=(1, 2)))


# ---- what an activation is ----


def test_merge_refuses_parts_of_two_networks_though_nothing_was_said_of_them(tmp_path):
    net, other = small_net(), small_net()
    with torch.no_grad():
        other.conv2.bias[0] += 1
    images = torch.randn(7, 3, 4, 4)
    scan(net, images, shard=(0, 3), out=tmp_path / "part")
    one, two = read_scan(tmp_path / "part"), scan(net, images, shard=(1, 3))
    for part in (one, one.merge(two)):
        with pytest.raises(UsageError, match="do not belong together: weights differ"):
            part.merge(scan(other, images, shard=(2, 3)))
    whole = one.merge(two).merge(scan(net, images, shard=(2, 3)))
    assert contents(whole, tmp_path) == contents(scan(net, images, checkpoint=tmp_path / "state"), tmp_path)


def test_a_convolution_and_its_relu_name_the_same_activations():
    images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for inplace in (True, False):
        net = small_net()
        net.relu.inplace = inplace
        top = scan(net, images, ["conv1", "relu#1", "conv2"], batch_size=5)
        a, b = top["conv1"], top["relu#1"]
        for name in ("values", "images", "positions", "maximum", "fires", "dead", "always"):
            assert torch.equal(getattr(a, name), getattr(b, name))


def test_an_activation_is_what_the_module_put_out_before_it_was_overwritten():
    net, images = small_net(), torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = net.conv2(net.conv1(images).relu())  # without the sum that overwrites it
    top = scan(net, images, batch_size=12)
    assert entries(top["conv2"]) == sorted_activations(maps, range(12), 9)


def test_layers_are_the_convolutions_and_linear_layers_or_those_named():
    net, images = small_net(), torch.randn(2, 3, 8, 8)
    assert list(scan(net, images)) == ["conv1", "conv2", "fc"]
    assert list(scan(net, images, ["fc", "relu#2", "conv1"])) == ["conv1", "relu#2", "fc"]  # in the network's order
    assert list(scan(net, images, "conv2")) == ["conv2"]
    with pytest.raises(UsageError, match="relu#1, relu#2"):
        scan(net, images, ["relu"])
    with pytest.raises(UsageError, match="conv1"):
        scan(net, images, ["conv3"])
    with pytest.raises(UsageError, match="relu1"):
        scan(nn.Sequential(OrderedDict(relu1=nn.ReLU())), images)


def test_a_convolution_that_is_called_twice_is_two_layers():
    conv = nn.Conv2d(3, 3, 1)
    top = scan(nn.Sequential(OrderedDict(a=conv, b=conv)), torch.randn(2, 3, 4, 4))
    assert list(top) == ["a#1", "a#2"]


def test_the_network_is_left_as_it_was():
    net = small_net()
    state = {name: t.clone() for name, t in net.state_dict().items()}
    scan(net, torch.randn(3, 3, 8, 8), ["conv1"], device="cpu")
    assert not net.training and not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_float64_networks_give_float64_values():
    images = tied_images(3)
    top = scan(identity().double(), images)
    assert top["conv1"].values.dtype == torch.float64
    assert entries(top["conv1"]) == sorted_activations(images, range(3), 9)


@pytest.mark.parametrize("n", [1, 5])
def test_fewer_images_than_k(n):
    images = tied_images(n)
    layer = scan(identity(), images)["conv1"]
    assert layer.values.shape == (3, 9) and entries(layer) == sorted_activations(images, range(n), 9)


def test_every_batch_has_the_same_size_and_goes_no_further_than_the_last_layer():
    sizes = []

    class Noted(nn.Module):
        def forward(self, x):
            sizes.append((len(x), self.training))
            return x

    net = nn.Sequential(OrderedDict(before=Noted(), conv1=identity().conv1, after=Noted())).eval()
    net.after.train()
    scan(net, Pictures(tied_images(10), broken=(1, 9)), batch_size=4)
    # one image shows which layers there are, two of noise how they may lie; after the last of them no batch goes on
    assert sizes == [(1, False), (1, True), (1, False), (1, False), (4, False), (4, False), (4, False)]


# ---- how the maps lie in memory ----


class Pooled(nn.Sequential):
    """Convolution, contrast normalisation, pooling, convolution; what comes between is a layer of one's own."""

    def __init__(self, own=None):
        torch.manual_seed(0)
        super().__init__(OrderedDict(
            conv1=nn.Conv2d(3, 8, 3), relu1=nn.ReLU(inplace=True), norm1=nn.LocalResponseNorm(5, 1e-2),
            own=own or nn.Identity(), pool1=nn.MaxPool2d(3, 2), conv2=nn.Conv2d(8, 6, 3), relu2=nn.ReLU(inplace=True)))
        self.eval()
        self.formats = set()  # how the maps lay of which conv2 took several
        self.conv2.register_forward_pre_hook(lambda module, given: self.formats.add(
            given[0].is_contiguous(memory_format=torch.channels_last)) if len(given[0]) > 1 else None)


def noise(n, seed=1):
    return torch.randn(n, 3, 13, 12, generator=torch.Generator().manual_seed(seed))


def test_a_scan_has_the_numbers_of_a_tape(monkeypatch):
    net, images, normalised = Pooled(), noise(12), []

    def noted(maps, *rest):
        normalised.append(len(maps))
        return local_response_norm(maps, *rest)

    monkeypatch.setattr("deconvnet.contrast.local_response_norm", noted)
    top, tape = scan(net, images, k=12, batch_size=5), record(net, images)
    assert net.formats == {True, False} and normalised == [5, 5, 5]  # the scan in its way, the tape in torch's
    assert torch.equal(tape.activations("conv2"), net(images).detach())
    for layer in ("conv1", "conv2"):
        maps, found = tape.activations(layer), top[layer]
        n, u = found.images, torch.arange(len(found.images))[:, None]
        y, x = found.positions.unbind(2)
        assert (n >= 0).any() and found.values.max() > 0
        got = torch.where(n >= 0, maps[n, u, y, x], 0.0)
        torch.testing.assert_close(found.values, got, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.values, maps.amax((2, 3)).sort(0, descending=True)[0].T, rtol=1e-5, atol=1e-6)


class Flat(nn.Module):
    """Takes for granted that maps lie as they always did, and says so."""

    def forward(self, x):
        return x.view(len(x), -1).view(x.shape)


class Blind(nn.Module):
    """Takes for granted that maps lie as they always did, and computes nonsense where they do not."""

    def forward(self, x):
        return x.as_strided(x.shape, (x[0].numel(), x[0, 0].numel(), x.shape[3], 1))


class Choosy(nn.Module):
    """Refuses noise, for it is made for images from 0 to 1."""

    def forward(self, x):
        if x.amax() > 1:
            raise ValueError("light out of range")
        return x


@pytest.mark.parametrize("own", [Flat(), Blind()])
def test_a_network_that_takes_its_memory_for_granted_gets_what_it_expects(own):
    net, images = Pooled(own), noise(12)
    top, same = scan(net, images, batch_size=5), scan(Pooled(), images, batch_size=5)
    assert net.formats == {False}
    for layer in same:
        assert torch.equal(top[layer].images, same[layer].images)
        torch.testing.assert_close(top[layer].values, same[layer].values, rtol=1e-5, atol=1e-6)


def test_a_network_that_takes_no_noise_is_scanned_as_ever():
    net = nn.Sequential(OrderedDict(own=Choosy(), conv1=identity().conv1))
    images = tied_images(5).clamp(max=1)
    assert entries(scan(net, images)["conv1"]) == sorted_activations(images, range(5), 9)


@pytest.mark.parametrize("net", [identity().double(), Pooled().double()])
def test_other_precisions_lie_as_ever(net):
    lying = []
    net.conv1.register_forward_pre_hook(
        lambda module, given: lying.append(given[0].is_contiguous(memory_format=torch.channels_last)))
    scan(net, noise(3))
    assert lying == [False, False]


def test_weights_lie_as_they_did_after_a_scan_and_after_an_error():
    net = Pooled()
    net.conv2.weight.data = net.conv2.weight.data.contiguous(memory_format=torch.channels_last)
    places = {name: (t.data_ptr(), t.stride()) for name, t in net.state_dict().items()}
    scan(net, noise(3))
    images = noise(5)
    images[4, 0, 0, 0] = float("nan")
    with pytest.raises(DeconvnetError, match="image 4"):
        scan(net, images, batch_size=2)
    assert {name: (t.data_ptr(), t.stride()) for name, t in net.state_dict().items()} == places
    maps = torch.randn(2, 4, 3, 3)
    assert torch.equal(nn.LocalResponseNorm(2)(maps), nn.LocalResponseNorm(2)(maps.clone()))


def test_shards_and_interruptions_give_the_same_bytes_from_maps_that_lie_channels_last(tmp_path):
    images, file = noise(11), tmp_path / "state"
    whole = contents(scan(Pooled(), images, batch_size=4), tmp_path)
    shards = [scan(Pooled(), images, batch_size=4, shard=(rank, 3)) for rank in range(3)]
    assert contents(reduce(Scan.merge, shards), tmp_path) == whole
    data = Pictures(images)
    for stop in (5, 9):
        data.interrupt = stop
        with pytest.raises(KeyboardInterrupt):
            scan(Pooled(), data, batch_size=4, checkpoint=file)
    data.interrupt = None
    assert contents(scan(Pooled(), data, batch_size=4, checkpoint=file), tmp_path) == whole


# ---- the debugger's figures ----


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 20), st.integers(1, 7))
def test_class_means_and_shares(data, n, batch_size):
    images = tied_images(n, data.draw(st.integers(0, 99)), size=(1, 2)) - 1  # many have nothing positive
    labels = data.draw(st.lists(st.integers(-1, 4), min_size=n, max_size=n))
    layer = scan(identity(), [(images, torch.tensor(labels))], batch_size=batch_size)["conv1"]
    expected = mean_maximum_by_class(images, labels)
    assert layer.class_means.shape == (len(expected), 3)
    torch.testing.assert_close(layer.class_means, torch.tensor(expected).reshape(-1, 3))
    strongest = images.clamp(min=0).amax((2, 3))  # (N, 3)
    assert torch.equal(layer.maximum, strongest.amax(0))
    torch.testing.assert_close(layer.fires, (strongest > 0).float().mean(0))
    assert layer.dead.tolist() == [u for u in range(3) if strongest[:, u].max() == 0]


def layer_of(means, counts):
    """A LayerScan whose class means are given."""
    layer = LayerScan.blank(len(means[0]), 1, classes=len(means))
    layer.class_sums = torch.tensor(means, dtype=torch.float64) * torch.tensor(counts)[:, None]
    layer.class_counts = torch.tensor(counts)
    return layer


def test_selectivity_by_hand():
    layer = layer_of([[4.0, 1.0, 0.0, 2.0], [0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]], [2, 1, 5])
    torch.testing.assert_close(layer.selectivity, torch.tensor([1.0, 0.0, 0.0, 0.6]))  # (2 − 0.5) / (2 + 0.5)
    assert layer.preferred.tolist() == [0, 0, -1, 0]
    absent = layer_of([[4.0], [2.0], [0.0]], [1, 1, 0])  # a class without images says nothing
    torch.testing.assert_close(absent.selectivity, torch.tensor([1 / 3]))
    assert layer_of([[4.0]], [3]).selectivity.tolist() == [0]
    assert LayerScan.blank(2, 1).preferred.tolist() == [-1, -1]


def test_units_that_fire_for_everything():
    images = -torch.ones(200, 3, 2, 2)
    images[:, 0], images[:198, 1], images[:197, 2] = 1, 1, 1
    assert scan(identity(), images)["conv1"].always.tolist() == [0, 1]  # 100 %, 99 %, 98.5 %


def test_names_and_labels_of_the_data_set_are_taken_over():
    data = Pictures(tied_images(4), files=["a/1.png", "a/2.png", "b/1.png", "3.png"])
    data.classes, data.labels = ["a", "b"], [0, 0, 1, -1]
    top = scan(identity(), data)
    assert (top.files, top.classes, top.labels) == (data.files, ["a", "b"], [0, 0, 1, -1])
    assert top["conv1"].class_counts.tolist() == [2, 1]
    data.labels = [0, 0, 2, 1]
    with pytest.raises(UsageError, match=r"label 2.* 2 classes"):
        scan(identity(), data)
    data.files = ["a"]
    with pytest.raises(UsageError, match="4 images, but 1 files"):
        scan(identity(), data)


def test_classes_without_images_have_a_row():
    data = Pictures(tied_images(2), [1, 1])
    data.classes = ["a", "b", "c"]
    means = scan(identity(), data)["conv1"].class_means
    assert means.shape == (3, 3) and means[[0, 2]].eq(0).all()


# ---- bad images ----


@pytest.mark.parametrize("broken", [(0,), (3, 4, 5), (0, 1, 2, 3, 10), tuple(range(0, 11, 2))])
@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_named_and_change_nothing_for_the_others(broken, workers):
    net, images = small_net(), torch.randn(11, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    top = scan(net, Pictures(images, broken=broken), k=11, batch_size=4, workers=workers)
    whole = scan(net, images, k=11, batch_size=4)
    assert top.skipped == [(f"bad{i}.jpg", "an empty file") for i in broken] and top.count == 11 - len(broken)
    for layer in whole:
        assert entries(top[layer]) == [[e for e in unit if e[1] not in broken] for unit in entries(whole[layer])]


@pytest.mark.parametrize("workers", [0, 2])
def test_strict_stops_at_the_first(workers):
    with pytest.raises(UnreadableImage, match=r"bad3.jpg: an empty file"):
        scan(identity(), Pictures(tied_images(9), broken=(5, 3)), strict=True, batch_size=8, workers=workers)


def test_no_images():
    for nothing in (torch.zeros(0, 3, 4, 4), [], Pictures(torch.zeros(0, 3, 4, 4))):
        with pytest.raises(UsageError, match="no images"):
            scan(identity(), nothing)
    with pytest.raises(UsageError, match=r"None of the 2 images .* bad0.jpg: an empty file"):
        scan(identity(), Pictures(tied_images(2), broken=(0, 1)))
    with pytest.raises(UsageError, match="no images"):
        scan(identity(), torch.zeros(0, 3, 4, 4), shard=(0, 2))


class Samples(IterableDataset):
    def __iter__(self):
        return iter(tied_images(5))


def test_data_loaders_and_iterable_data_sets():
    images = tied_images(5)
    expected = sorted_activations(images, range(5), 9)
    labelled = TensorDataset(images, torch.arange(5))
    for source in (Samples(), DataLoader(labelled, 2), DataLoader(TensorDataset(images), 3), labelled):
        assert entries(scan(identity(), source)["conv1"]) == expected


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_images_of_different_sizes(workers, batch_size):
    images = [torch.zeros(3, 4, 4), torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)]
    with pytest.raises(UsageError, match=r"one size: image 0 is \(3, 4, 4\), image 2 \(3, 4, 5\)"):
        scan(identity(), Pictures(images), batch_size=batch_size, workers=workers)


@pytest.mark.parametrize("images, message", [
    (Pictures(["a.png"]), "Image 0 must be .* not str"),
    (Pictures([torch.zeros(3, 4, 4, dtype=torch.uint8)]), "not torch.uint8"),
    (Pictures(tied_images(1), ["cat"]), "label of image 0"),
    (Pictures(tied_images(1), [float("inf")]), "label of image 0"),
    (Pictures(tied_images(1), [2 ** 16]), "Image 0 has label 65536, .* below 65,536"),
    (Pictures(tied_images(1), [2 ** 70]), "Image 0 has label .* leave it out"),
    (torch.zeros(3, 4, 4), r"must be \(N, C, H, W\)"),
    (["a.png"], "not str"),
    ([(tied_images(2), torch.tensor([1]))], "2 images and 1 labels"),
    (7, "not int"),
])
def test_what_is_no_image(images, message):
    with pytest.raises(UsageError, match=message):
        scan(identity(), images)


@pytest.mark.parametrize("options, message", [
    ({"k": 0}, "k must be"), ({"per_image": 0}, "per_image"), ({"batch_size": 0}, "batch_size"),
    ({"workers": -1}, "workers"), ({"shard": (2, 2)}, "shard"), ({"shard": (0, 0)}, "shard"),
    ({"device": "nonsense"}, "nonsense"), ({"provenance": {"x": object()}}, "provenance"), ({"layers": []}, "conv1"),
])
def test_wrong_arguments(options, message):
    with pytest.raises(UsageError, match=message):
        scan(identity(), tied_images(2), **options)


# ---- bad networks ----


@pytest.mark.parametrize("module", [nn.Dropout(), nn.BatchNorm2d(3), nn.Dropout2d()])
def test_training_mode_is_refused(module):
    with pytest.raises(UsageError, match=r"bad .*training mode: call net\.eval\(\)"):
        scan(nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 3, 1), bad=module)), tied_images(2))


def test_normalising_by_the_batch_is_refused():
    norm = nn.BatchNorm2d(3, track_running_stats=False).eval()
    with pytest.raises(UsageError, match="track_running_stats"):
        scan(nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 3, 1), bad=norm)).eval(), tied_images(2))


def test_nan_names_the_layer_and_the_image():
    net = small_net()
    with torch.no_grad():
        net.conv2.weight[1, 1, 1, 1] = float("nan")
    with pytest.raises(DeconvnetError, match=r"'conv2' .* image 0: look at the weights of conv2"):
        scan(net, torch.randn(3, 3, 8, 8))
    images = tied_images(5)
    images[3, 0, 0, 0] = float("-inf")
    with pytest.raises(DeconvnetError, match=r"'conv1' .* image 3 \(d.png\): the image itself holds some"):
        scan(identity(), Pictures(images, files=list(map("{}.png".format, "abcde"))), batch_size=2)


def test_nan_for_the_images_that_only_fill_up_is_nobody_s_concern():
    class Normalise(nn.Module):
        def forward(self, x):
            return x / x.abs().amax((1, 2, 3), keepdim=True)  # 0 / 0 for an image of zeros

    net = nn.Sequential(OrderedDict(norm=Normalise(), conv1=identity().conv1))
    images = tied_images(3)
    images[:, 0, 0, 0] = 2
    assert entries(scan(net, images)["conv1"]) == sorted_activations(images / 2, range(3), 9)


def test_outputs_that_are_no_maps_are_refused():
    net = nn.Sequential(OrderedDict(flat=nn.Flatten(2), fc=nn.Linear(12, 4)))
    with pytest.raises(UsageError, match=r"'fc' .*\(1, 3, 4\)"):
        scan(net, tied_images(2))


# ---- files ----


def a_scan():
    names = ["plain.png", "zwei\nZeilen.png", "\udcff\udc80.png", "日本/é\u0301.png", '"quotes\\".png', ""]
    data = Pictures(tied_images(6), broken=(1,), files=names)
    data.classes, data.labels = ["a\n", "\udc80"], [0, 1, 1, -1, 0, 0]
    return scan(identity(), data, k=2, provenance={"model": "zfnet", "nested": {"é": [1, 2.5, None]}})


def test_a_scan_survives_the_file(tmp_path):
    top = a_scan()
    top.save(tmp_path / "top.safetensors")
    again = read_scan(tmp_path / "top.safetensors")
    for name in ("k", "per_image", "count", "files", "classes", "labels", "unreadable", "shards", "provenance"):
        assert getattr(again, name) == getattr(top, name), name
    assert list(again) == list(top) and again.skipped == [("bad1.jpg", "an empty file")]
    for name in ("values", "images", "positions", "fired", "class_sums", "class_counts", "sample.images",
                 "sample.maxima"):
        before, after = map(attrgetter(name), (top["conv1"], again["conv1"]))
        assert torch.equal(before, after) and before.dtype == after.dtype
    assert again["conv1"].count == 5
    assert contents(again, tmp_path) == (tmp_path / "top.safetensors").read_bytes()
    assert names_in(tmp_path) == ["contents", "top.safetensors"]  # nothing is left beside


def test_layer_names_may_look_like_anything(tmp_path):
    blank = {name: LayerScan.blank(2, 3) for name in ("a", "a.values", "a.b#2", '"deconvnet":"sha256:', "lists", "é\n")}
    for number, layer in enumerate(blank.values()):
        layer.top = TopK(2, 3)
        layer.top.update(torch.full((1, 2), number + 1.0), torch.tensor([number]))
    Scan(blank).save(tmp_path / "x")
    again = read_scan(tmp_path / "x")
    assert list(again) == list(blank) and [int(s.maximum[0]) for s in again.values()] == [1, 2, 3, 4, 5, 6]


def test_a_flipped_bit_is_seen_wherever_it_is(tmp_path):
    whole = contents(a_scan(), tmp_path)
    damaged = tmp_path / "damaged"
    for place in [*range(0, 400), *range(400, len(whole), 7), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        damaged.write_bytes(changed)
        with pytest.raises(DeconvnetError, match="damaged"):
            read_scan(damaged)


def test_what_is_cut_off_or_something_else_is_named(tmp_path):
    whole = contents(a_scan(), tmp_path)
    for length in [0, 1, 8, 50, 100, 500, len(whole) - 1]:
        (tmp_path / "short").write_bytes(whole[:length])
        with pytest.raises(DeconvnetError, match=r"short is .*damaged.*scan"):
            read_scan(tmp_path / "short")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG" * 100)
    with pytest.raises(DeconvnetError, match=r"picture.png is not a scan"):
        read_scan(tmp_path / "picture.png")
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DeconvnetError, match=f"{path.name} cannot be read"):
            read_scan(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "top").write_text("old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DeconvnetError, match="top cannot be written: No space left"):
        a_scan().save(tmp_path / "top")
    assert names_in(tmp_path) == ["top"] and (tmp_path / "top").read_text() == "old"
    with pytest.raises(DeconvnetError, match="cannot be written"):
        a_scan().save(tmp_path / "no" / "folder")


def test_a_layer_that_is_not_in_the_scan():
    top = scan(small_net(), torch.randn(2, 3, 8, 8), ["relu#1", "relu#2", "conv1"])
    assert "conv1" in top and "relu" not in top and len(top) == 3
    with pytest.raises(UsageError, match="relu#1, relu#2"):
        top["relu"]
    with pytest.raises(UsageError, match="conv1"):
        top["conv7"]


# ---- interruption ----


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
@pytest.mark.parametrize("every", [0.0, 1000.0])
def test_goes_on_after_an_interruption_to_the_same_bytes(shard, every, tmp_path):
    images, file = tied_images(13, size=(2, 2)), tmp_path / "state"
    expected = contents(scan(identity(), Pictures(images, [0] * 13, (2, 7)), batch_size=3, shard=shard), tmp_path)
    data = Pictures(images, [0] * 13, broken=(2, 7))
    for stop in range(shard[0], 13, shard[1]):  # interrupted at every image, one after the other
        data.interrupt = stop
        with pytest.raises(KeyboardInterrupt):
            scan(identity(), data, batch_size=3, shard=shard, checkpoint=file, every=every)
        assert file.exists() == (stop // shard[1] >= 3)
    data.interrupt = None
    top = scan(identity(), data, batch_size=3, shard=shard, checkpoint=file)
    assert contents(top, tmp_path) == expected
    assert not file.exists()


def test_an_iterable_goes_on_where_it_was(tmp_path):
    images, file = tied_images(13), tmp_path / "state"

    def until(stop):
        for i in range(0, 13, 2):
            if i >= stop:
                raise KeyboardInterrupt
            yield images[i:i + 2]

    for stop in (0, 5, 9):
        with pytest.raises(KeyboardInterrupt):
            scan(identity(), until(stop), batch_size=3, checkpoint=file)
    top = scan(identity(), until(99), batch_size=3, checkpoint=file)
    assert contents(top, tmp_path) == contents(scan(identity(), images, batch_size=3), tmp_path)


def interrupted(tmp_path, **options):
    """The checkpoint of a scan that was interrupted, and its images."""
    data = Pictures(tied_images(9))
    data.interrupt = 7
    with pytest.raises(KeyboardInterrupt):
        scan(identity(), data, batch_size=2, checkpoint=tmp_path / "state", **options)
    data.interrupt = None
    return tmp_path / "state", data


@pytest.mark.parametrize("every", [0.0, 1000.0])
def test_an_interruption_while_a_batch_is_taken_in_leaves_no_half(every, tmp_path, monkeypatch):
    keep, calls = LayerScan.keep, []

    def stop_in_the_second_batch(self, *args):
        calls.append(1)
        if len(calls) == 5:  # three layers to a batch: after conv1 of the second
            raise KeyboardInterrupt
        keep(self, *args)

    images = torch.randn(9, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = contents(scan(small_net(), images, batch_size=3), tmp_path)
    monkeypatch.setattr(LayerScan, "keep", stop_in_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        scan(small_net(), images, batch_size=3, checkpoint=tmp_path / "state", every=every)
    assert (tmp_path / "state").exists() == (every == 0)
    again = scan(small_net(), images, batch_size=3, checkpoint=tmp_path / "state")
    assert contents(again, tmp_path) == expected


@pytest.mark.parametrize("options, message", [
    ({"k": 5}, "k: 9 there, 5 here"), ({"batch_size": 3}, "batch_size: 2 there, 3 here"),
    ({"layers": ["relu1"]}, "layers: None there, \\['relu1'\\] here"), ({"shard": (0, 2)}, "shard"),
    ({"provenance": {"model": "b"}}, "model: a there, b here"), ({"per_image": 2}, "per_image"),
])
def test_the_state_of_another_scan_is_refused(options, message, tmp_path):
    file, data = interrupted(tmp_path, provenance={"model": "a"})
    with pytest.raises(UsageError, match=rf"(?s)another scan:.*{message}.*Delete the file"):
        scan(identity(), data, **{"batch_size": 2, "checkpoint": file, "provenance": {"model": "a"}, **options})
    assert file.exists()


def test_the_state_of_other_weights_or_images_is_refused(tmp_path):
    file, data = interrupted(tmp_path)
    net = identity()
    net.conv1.weight.data[0, 0] = 2
    with pytest.raises(UsageError, match="weights"):
        scan(net, data, batch_size=2, checkpoint=file)
    with pytest.raises(UsageError, match="images: 9 there, 8 here"):
        scan(identity(), Pictures(tied_images(8)), batch_size=2, checkpoint=file)
    with pytest.raises(UsageError, match="names"):
        scan(identity(), Pictures(tied_images(9), files=list("abcdefghi")), batch_size=2, checkpoint=file)


@pytest.mark.parametrize("change", ["stride", "padding", "dilation"])
def test_the_state_of_a_network_with_the_same_weights_and_other_layers_is_refused(change, tmp_path):
    file, data = interrupted(tmp_path)
    net = identity()
    setattr(net.conv1, change, (2, 2))
    with pytest.raises(UsageError, match=r"(?s)another scan:\n  network: .* there, .* here.*Delete the file"):
        scan(net, data, batch_size=2, checkpoint=file)


class Owner(nn.ReLU):
    """A layer that prints a word and an object, which lies elsewhere in every process."""

    def __init__(self, word):
        super().__init__()
        self.word, self.object = word, object()

    def extra_repr(self):
        return f"{self.word}, {self.object}"


def test_a_network_that_prints_where_its_objects_lie_is_known_again():
    images = torch.zeros(1, 3, 4, 4)
    nets = [nn.Sequential(identity(), Owner(word)) for word in ("one", "one", "other")]
    assert len(set(map(repr, nets))) == 3
    blank = blank_scan(images, 9, 1, (0, 1), None, "")
    one, again, other = (fingerprint_of(net, "", images, blank, torch.device("cpu")) for net in nets)
    assert one == again and [key for key in one if one[key] != other[key]] == ["network"]


def test_a_damaged_state_is_said_aloud_and_the_scan_begins_again(tmp_path):
    file, data = interrupted(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"begins again.*state is .*damaged"):
        top = scan(identity(), data, batch_size=2, checkpoint=file)
    assert contents(top, tmp_path) == contents(scan(identity(), data, batch_size=2), tmp_path)


def test_strict_after_an_interruption(tmp_path):
    data = Pictures(tied_images(9), broken=(0,))
    data.interrupt = 7
    with pytest.raises(KeyboardInterrupt):
        scan(identity(), data, batch_size=2, checkpoint=tmp_path / "state")
    with pytest.raises(UnreadableImage, match="bad0"):
        scan(identity(), data, batch_size=2, checkpoint=tmp_path / "state", strict=True)


ENDLESS = """
import sys, time, torch
sys.path.insert(0, {tests!r})
from test_scan import Pictures, identity, scan
class Slow(Pictures):
    def __getitem__(self, index):
        if index == 40:
            print("going", flush=True)
        time.sleep(0.01)
        return super().__getitem__(index)
if __name__ == "__main__":
    scan(identity(), Slow(torch.ones(100000, 3, 2, 2)), batch_size=4, workers=2, checkpoint={state!r})
"""


def children(pid):
    """The processes that a process has started and that are still there."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may end while we look
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(folder)
    return found


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_ctrl_c_leaves_no_worker_and_saves_the_state(tmp_path):
    state, tests = str(tmp_path / "state"), str(Path(__file__).parent)
    program = subprocess.Popen([sys.executable, "-c", ENDLESS.format(tests=tests, state=state)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "going\n"
    time.sleep(0.3)
    workers = children(program.pid)
    program.send_signal(signal.SIGINT)
    errors = program.communicate(timeout=60)[1]
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert len(workers) >= 2 and not any(worker.exists() for worker in workers)
    assert read_scan(state).count > 0


def test_progress_is_shown_only_on_request(capsys):
    scan(identity(), tied_images(5))
    assert capsys.readouterr().err == ""
    scan(identity(), tied_images(5), progress=True, batch_size=2)
    assert "5/5" in capsys.readouterr().err
