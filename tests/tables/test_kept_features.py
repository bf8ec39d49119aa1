"""Features: what they are, that they are used again, and by nothing that they do not belong to."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trees

from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.images import Preprocess, open_images
from deconvnet.network import load_model
from deconvnet.transfer import features as module
from deconvnet.transfer.features import Pooling, features, pooled

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def net(tmp_path):
    return load_model(trees.network(tmp_path))


@pytest.fixture
def images(tmp_path, net):
    return open_images(trees.classes(tmp_path / "tree", {"ant": 3, "bee": 2}), net.preprocess)


def count_passes(monkeypatch):
    passes = []
    forward = module._forward
    monkeypatch.setattr(module, "_forward", lambda *args: passes.append(1) or forward(*args))
    return passes


def test_features_are_the_positive_part_pooled_to_the_grid(net, images):
    found = features(net, images, ["conv1", "fc2"], Pooling(grid=2))
    with torch.no_grad():
        maps = net.conv1(images[4][0][None])
        scores = net(images[4][0][None])
    by_hand = [maps[0, unit, y:y + 7, x:x + 7].max().clamp(min=0) for unit in range(6) for y in (0, 7) for x in (0, 7)]
    np.testing.assert_allclose(found.layers["conv1"][4], by_hand, rtol=1e-5)
    np.testing.assert_allclose(found.layers["fc2"][4], scores[0].clamp(min=0), rtol=1e-5)


def test_the_grid_of_six_leaves_the_last_maps_of_zfnet_as_its_own_pooling_makes_them():
    maps = torch.rand(2, 3, 13, 13)
    own = torch.nn.functional.max_pool2d(maps, 3, 2, ceil_mode=True).flatten(1)
    assert torch.equal(pooled(maps, Pooling()), own)
    assert torch.equal(pooled(maps[..., :6, :6], Pooling()), maps[..., :6, :6].flatten(1))


def test_the_mean_is_another_pooling(net, images):
    maps = torch.rand(1, 2, 4, 4)
    assert torch.allclose(pooled(maps, Pooling(grid=1, by="mean")), maps.mean((2, 3)))


def test_kept_features_are_used_again_without_the_network(net, images, tmp_path, monkeypatch):
    passes = count_passes(monkeypatch)
    store = str(tmp_path / "kept")
    first = features(net, images, ["conv1"], Pooling(), store)
    assert len(passes) == 1
    again = features(net, images, ["conv1"], Pooling(), store)
    assert len(passes) == 1
    np.testing.assert_array_equal(again.layers["conv1"], first.layers["conv1"])
    features(net, images, ["fc2", "conv1"], Pooling(), store)  # only the new layer is computed
    assert len(passes) == 2 and len(list((tmp_path / "kept").iterdir())) == 2


def test_another_network_preprocessing_set_or_pooling_does_not_find_them(net, images, tmp_path, monkeypatch):
    store = str(tmp_path / "kept")
    features(net, images, ["conv1"], Pooling(), store)
    passes = count_passes(monkeypatch)
    trees.picture(tmp_path / "tree" / "bee" / "another.png", (0, 0, 0), 9)
    features(net, open_images(tmp_path / "tree", net.preprocess), ["conv1"], Pooling(), store)
    features(net, images, ["conv1"], Pooling(grid=3), store)
    net.preprocess = Preprocess(16, 20)
    features(net, open_images(tmp_path / "tree", net.preprocess), ["conv1"], Pooling(), store)
    with torch.no_grad():
        net.conv1.weight += 1e-3
    features(net, images, ["conv1"], Pooling(), store)
    assert len(passes) == 4


def test_a_file_under_the_name_of_another_is_refused(net, images, tmp_path):
    store = tmp_path / "kept"
    features(net, images, ["conv1"], Pooling(), str(store))
    file, = store.iterdir()
    features(net, images, ["conv1"], Pooling(grid=3), str(store))
    other, = set(store.iterdir()) - {file}
    other.replace(file)
    with pytest.raises(UsageError, match=r"holds features of something else \(what differs: pooling\)"):
        features(net, images, ["conv1"], Pooling(), str(store))


@pytest.mark.parametrize("damage", [lambda data: data[:50], lambda data: b"", lambda data: data[:-3] + b"abc"])
def test_a_damaged_file_is_made_again(net, images, tmp_path, monkeypatch, damage):
    store = tmp_path / "kept"
    first = features(net, images, ["conv1"], Pooling(), str(store))
    file, = store.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    passes = count_passes(monkeypatch)
    again = features(net, images, ["conv1"], Pooling(), str(store))
    assert len(passes) == 1
    np.testing.assert_array_equal(again.layers["conv1"], first.layers["conv1"])


def test_an_unreadable_image_is_told_from_a_file_too(net, tmp_path):
    root = trees.classes(tmp_path / "tree", {"ant": 3})
    (root / "ant" / "0001.png").write_bytes(b"no picture")
    for _ in range(2):
        found = features(net, open_images(root, net.preprocess), ["conv1"], Pooling(), str(tmp_path / "kept"))
        assert list(found.unreadable) == [1] and not found.layers["conv1"][1].any()


def test_a_layer_that_is_not_there_is_refused_before_any_image_is_read(net, images, monkeypatch):
    passes = count_passes(monkeypatch)
    with pytest.raises(UsageError, match="Did you mean 'conv1'"):
        features(net, images, ["conv9"], Pooling())
    assert not passes


def test_images_of_a_size_that_the_network_cannot_take_are_refused(net, images):
    net.preprocess = Preprocess(12, 12)
    with pytest.raises(DeconvnetError, match="cannot take an image of 12×12"):
        features(net, images, ["conv1"], Pooling())


def test_nan_is_named(net, images):
    with torch.no_grad():
        net.conv1.bias[0] = float("nan")
    with pytest.raises(DeconvnetError, match="'conv1' puts out NaN or infinity for image 0"):
        features(net, images, ["conv1"], Pooling())


def test_a_store_that_cannot_be_is_named(net, images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeconvnetError, match="file"):
        features(net, images, ["conv1"], Pooling(), str(tmp_path / "file" / "below"))


def test_files_hold_no_path(net, images, tmp_path):
    features(net, images, ["conv1"], Pooling(), str(tmp_path / "kept"))
    file, = Path(tmp_path / "kept").iterdir()
    assert str(tmp_path).encode() not in file.read_bytes()
