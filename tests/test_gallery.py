"""From a scan to reconstructions and patches: the right image, the right window, the right order."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import deconvnet
from deconvnet.errors import DeconvnetError, UnreadableImage, UsageError
from deconvnet.gallery import Gallery, galleries, gallery
from deconvnet.images import ImageFolder, Photographs, Preprocess
from deconvnet.layout import GAP, TITLE, framed, line
from deconvnet.patches import cut, stretched
from deconvnet.render import layer_sheet, unit_sheet
from deconvnet.units import parse_units

SIZE = 40
EMPTY = Gallery("conv2", 5, np.zeros(0), np.zeros(0), np.zeros((0, 2)), [], np.zeros((0, 2)), np.zeros((0, 3, 1, 1)),
                np.zeros((0, 1, 1, 3), np.uint8))


class Small(nn.Sequential):
    """Two layers whose receptive fields hang over the image's border."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5, stride=2, padding=2, bias=False)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.relu2 = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.conv2.weight[5] = -1.0  # dead
            self.conv2.bias[5] = -1.0
        self.preprocess = Preprocess(SIZE, SIZE)
        self.eval()


class Views(torch.utils.data.Dataset):
    """Some of the photographs' views, counting how often each is read."""

    def __init__(self, preprocess, every=37):
        self.all = Photographs(preprocess, overlap=0)
        self.numbers = range(0, len(self.all), every)
        self.preprocess = preprocess
        self.files = [self.all.files[number] for number in self.numbers]
        self.read = []

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        self.read.append(index)
        return self.all[self.numbers[index]]

    def image(self, index):
        return self.all.image(self.numbers[index])


@pytest.fixture(scope="module")
def net():
    return Small()


@pytest.fixture(scope="module")
def views(net):
    return Views(net.preprocess)


@pytest.fixture(scope="module")
def top(net, views):
    return deconvnet.scan(net, views, layers=["conv1", "conv2"], k=9)


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_each_tile_is_the_projection_and_the_patch_of_its_own_activation(net, views, top, layer):
    """The oracle projects one activation of one image at a time and cuts the patch pixel by pixel."""
    units = [4, 0, 3]
    for unit, one in zip(units, gallery(net, top, layer, units, views), strict=True):
        assert (one.layer, one.unit, one.remark, one.missing) == (layer, unit, "", [])
        assert one.values.tolist() == top[layer].values[unit].tolist()
        assert one.images.tolist() == top[layer].images[unit].tolist()
        assert one.positions.tolist() == top[layer].positions[unit].tolist()
        assert one.files == [views.files[image] for image in one.images]
        for place, image in enumerate(one.images.tolist()):
            tape = deconvnet.record(net, views[image][0][None])
            p = deconvnet.project(tape, layer, [(0, unit, *one.positions[place].tolist())])
            np.testing.assert_allclose(one.reconstructions[place], p.pixels[0].numpy(), rtol=1e-4, atol=1e-5)
            assert one.origins[place].tolist() == p.origin[0].tolist()
            picture = views.image(image)
            for y, row in enumerate(one.patches[place]):
                for x, pixel in enumerate(row):
                    at = (int(p.origin[0, 0]) + y, int(p.origin[0, 1]) + x)
                    inside = 0 <= at[0] < SIZE and 0 <= at[1] < SIZE
                    assert pixel.tolist() == (picture[at].tolist() if inside else [128] * 3)


def test_the_patch_is_what_the_unit_responds_to(net, views, top):
    """The first layer has no bias: the activation is the filter on the patch, whatever the tiles look like."""
    weight = net.conv1.weight.detach().numpy()
    for unit, one in enumerate(gallery(net, top, "conv1", range(6), views)):
        for value, patch, origin in zip(one.values, one.patches, one.origins, strict=True):
            inside = ((origin[:, None] + np.arange(5) >= 0) & (origin[:, None] + np.arange(5) < SIZE))
            mask = inside[0][:, None] & inside[1]
            inputs = ((patch / 255 - net.preprocess.mean) / net.preprocess.std) * mask[..., None]
            assert (inputs.transpose(2, 0, 1) * weight[unit]).sum() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_changes_nothing_and_each_image_is_read_once(net, top, batch_size):
    views = Views(net.preprocess)
    units = list(range(8))
    made = list(gallery(net, top, "conv2", units, views, batch_size=batch_size))
    assert sorted(views.read) == sorted(set(views.read))
    for one, other in zip(made, gallery(net, top, "conv2", units, Views(net.preprocess)), strict=True):
        np.testing.assert_allclose(one.reconstructions, other.reconstructions, rtol=1e-4, atol=1e-5)
        assert np.array_equal(one.patches, other.patches) and one.files == other.files


class OnlyRows(nn.Module):
    """What takes its maps row by row, as they lie in memory: not every network bears channels-last."""

    def forward(self, x):
        if not x.is_contiguous():
            raise RuntimeError("view size is not compatible with input tensor's size and stride")
        return x


def lying(net, images, **options):
    """The galleries of conv2, and how the maps of each batch lay: how many, and whether channels-last."""
    top, found = deconvnet.scan(net, images, ["conv2"]), []
    handle = net.pool1.register_forward_pre_hook(lambda module, given: found.append(
        (len(given[0]), given[0].is_contiguous(memory_format=torch.channels_last))))
    made = list(gallery(net, top, "conv2", range(8), images, **options))
    handle.remove()
    return made, [batch for batch in found if batch[0] > 1]


def test_a_network_is_recorded_channels_last_if_it_bears_that(net):
    views = Views(net.preprocess)
    images = torch.stack([views[number][0] for number in range(12)]).contiguous()
    other = Small()
    other.relu1 = nn.Sequential(other.relu1, OnlyRows())
    made, batches = lying(net, images, batch_size=4)
    same, plain = lying(other, images, batch_size=4)
    assert {last for _, last in batches} == {True} and {last for _, last in plain} == {False}
    for one, two in zip(made, same, strict=True):
        np.testing.assert_allclose(one.reconstructions, two.reconstructions, rtol=1e-4, atol=1e-5)


def test_as_many_images_are_recorded_together_as_memory_bears(net, monkeypatch):
    views = Views(net.preprocess, every=11)
    images = torch.stack([views[number][0] for number in range(30)])
    module = sys.modules["deconvnet.gallery"]
    monkeypatch.setattr(module, "MOST", 7)
    assert {count for count, _ in lying(net, images)[1][:-1]} == {7}
    taken = deconvnet.record(net, images[:1]).memory
    monkeypatch.setattr(module, "TAPE", 5 * taken + 1)
    assert {count for count, _ in lying(net, images)[1][:-1]} == {5}
    monkeypatch.setattr(module, "TAPE", taken - 1)
    made, batches = lying(net, images)
    assert len(made) == 8 and not batches


@pytest.mark.parametrize("units_at_once", [0, 1, 3])
def test_more_units_than_are_held_at_once_come_in_order(net, top, units_at_once):
    views = Views(net.preprocess)
    whole = {one.unit: one for one in gallery(net, top, "conv2", range(8), views)}
    height, width = whole[0].patches.shape[1:3]
    bytes_of_one = top.k * height * width * 15  # three colours as floats and as bytes
    views.read.clear()
    made = list(gallery(net, top, "conv2", [7, 7, 1, 2, 0, 3, 4], views, memory=units_at_once * bytes_of_one))
    assert [one.unit for one in made] == [7, 7, 1, 2, 0, 3, 4]
    for one in made:
        np.testing.assert_allclose(one.reconstructions, whole[one.unit].reconstructions, rtol=1e-4, atol=1e-5)
    groups = [[7], [7], [1], [2], [0], [3], [4]] if units_at_once < 2 else [[7, 7, 1], [2, 0, 3], [4]]
    assert len(views.read) == sum(len({n for unit in group for n in whole[unit].images}) for group in groups)


def test_galleries_of_several_layers_are_those_of_each_and_each_image_is_read_once(net, top):
    views, chosen = Views(net.preprocess), {"conv2": [4, 0, 5], "conv1": [2, 3]}
    made = list(galleries(net, top, chosen, views))
    assert [(one.layer, one.unit) for one in made] == [(layer, unit) for layer in chosen for unit in chosen[layer]]
    assert sorted(views.read) == sorted(set(views.read))
    alone = [one for layer, units in chosen.items() for one in gallery(net, top, layer, units, Views(net.preprocess))]
    for one, other in zip(made, alone, strict=True):
        np.testing.assert_allclose(one.reconstructions, other.reconstructions, rtol=1e-4, atol=1e-5)
        assert np.array_equal(one.patches, other.patches) and one.files == other.files
        assert np.array_equal(one.positions, other.positions) and np.array_equal(one.values, other.values)


def test_an_output_unit_is_called_by_its_class(views):
    net = Small()
    net.classes = ["ant", "bee", "cow", "dog\ud800", "elk", "fox"]
    assert not any(one.name for one in gallery(net, deconvnet.scan(net, views), "conv1", [0, 3], views)), "no output"
    net.conv2 = nn.Conv2d(6, 6, 3, padding=1)
    found = deconvnet.scan(net, views, layers=["conv1", "conv2"])
    assert [one.remark for one in gallery(net, found, "conv2", [3, 1], views)] == ["dog\\ud800", "bee"]
    assert "conv2:1: bee, " in repr(next(gallery(net, found, "conv2", [1], views)))
    assert not next(gallery(net, found, "conv1", [1], views)).name, "as many units, but not the output"
    net.fc = nn.Linear(7, 6)
    assert not next(gallery(net, found, "conv1", [1], views)).name, "of these images it has no output"
    del net.fc
    net.classes[1] = "bee,\n a  winged one"
    assert next(gallery(net, found, "conv2", [1], views)).name == "bee"
    for classes in (net.classes[:5], 6, None, "abcdef", dict(enumerate("abcdef")), [*range(6)]):
        net.classes = classes
        assert not next(gallery(net, found, "conv2", [1], views)).name, "not as many, or no names at all"


def test_the_output_is_what_is_called_last_wherever_it_was_made(views):
    class Backwards(Small):
        """The layer that is called last is the first that it has."""

        def __init__(self):
            super().__init__()
            self.classes = [letter * 40 for letter in "abcdef"]
            self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
            self.last = self.conv1
            del self.conv1
            self.move_to_end()

        def move_to_end(self):
            self._modules = {"last": nn.Conv2d(6, 6, 1), "body": nn.Sequential(self.last, self.relu1, self.conv2)}

        def forward(self, x):
            return self.last(self.body(x))

    net = Backwards().eval()
    found = deconvnet.scan(net, views, layers=["last", "body.2"])
    named = {layer: [one.name for one in gallery(net, found, layer, range(6), views)] for layer in ("last", "body.2")}
    assert named == {"last": [letter * 31 + "…" for letter in "abcdef"], "body.2": [""] * 6}


def test_a_dead_unit_has_no_tiles_and_says_so(net, views, top):
    dead, alive = gallery(net, top, "conv2", [5, 4], views)
    assert dead.remark == "dead" and "dead" in repr(dead) and alive.remark == ""
    assert dead.patches.shape == (0, *alive.patches.shape[1:]) and dead.files == [] and dead.values.shape == (0,)
    assert dead.reconstructions.shape == (0, *alive.reconstructions.shape[1:]) and dead.positions.shape == (0, 2)
    only, = gallery(net, top, "conv2", [5], views)
    assert "conv2:5 dead" in [text.words for text in layer_sheet([only, alive]).texts]


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_a_notebook_shows_the_sheet_enlarged_by_a_whole_number(net, views, top, layer):
    one, = gallery(net, top, layer, [4], views)
    picture = np.asarray(Image.open(io.BytesIO(one._repr_png_())))
    zoom = {"conv1": 14, "conv2": 4}[layer]  # six tiles across, of 5 and of 17 pixels, are 420 and 408
    assert np.array_equal(picture, np.asarray(unit_sheet(one, zoom=zoom).picture())) and picture.shape[1] >= 400
    assert one.patches.shape[2] * 6 * (zoom - 1) < 400


def test_a_large_field_is_not_enlarged_and_one_tile_is():
    tiles = {"reconstructions": np.ones((1, 3, 90, 80), np.float32), "patches": np.zeros((1, 90, 80, 3), np.uint8)}
    one, nine = (replace(EMPTY, **{name: np.repeat(tile, k, 0) for name, tile in tiles.items()}, values=np.ones(k))
                 for k in (1, 9))
    assert Image.open(io.BytesIO(nine._repr_png_())).size == (2 * (3 * 80 + 2) + 3 * GAP, 3 * 90 + 2 + 16 + 1 + 2 * GAP)
    assert Image.open(io.BytesIO(one._repr_png_())).width == 2 * 3 * 80 + 3 * GAP


@pytest.mark.parametrize(("missing", "words"), [
    ([], "conv2:5 dead: it fires in no image"),
    ([("a.jpg", "an empty file")], "conv2:5 1 missing: no image of it can be read any more")])
def test_a_unit_without_tiles_shows_words_that_say_why(missing, words):
    one = replace(EMPTY, missing=missing)
    shown = np.asarray(Image.open(io.BytesIO(one._repr_png_())))
    assert np.array_equal(shown, np.asarray(framed(line(words, TITLE)).picture())) and shown.min() == 0
    assert (shown[:, [0, -1]] == 255).all()  # nothing is cut off


def test_method_and_unpooling_reach_the_projection(net, views, top):
    pictures = {}
    for method in ("deconvnet", "gradient", "guided"):
        for unpool in ("switches", "center"):
            one, = gallery(net, top, "conv2", [4], views, method=method, unpool=unpool)
            pictures[method, unpool] = one.reconstructions
    assert not np.allclose(pictures["deconvnet", "switches"], pictures["gradient", "switches"])
    assert not np.allclose(pictures["deconvnet", "switches"], pictures["deconvnet", "center"])
    with pytest.raises(UsageError):
        list(gallery(net, top, "conv2", [4], views, method="magic"))


@pytest.mark.parametrize("method", ["deconvnet", "gradient"])
def test_the_way_down_of_the_strongest_comes_along_and_changes_no_tile(net, views, top, method):
    plain = list(gallery(net, top, "conv2", range(8), views, method=method))
    noted = list(gallery(net, top, "conv2", range(8), views, method=method, descent=2))
    for before, after in zip(plain, noted, strict=True):
        np.testing.assert_allclose(after.reconstructions, before.reconstructions, rtol=1e-4, atol=1e-6)
        assert np.array_equal(after.patches, before.patches) and not before.descent
        if len(after.values):
            assert [stage.step for stage in after.descent] == ["seed", "filter", "unpool", "rectify", "filter"]
            assert after.descent[0].chosen == (after.unit,) and after.descent[0].signal.max() == after.values[0]
            assert len(after.descent[2].signal) == len(after.descent[2].chosen) == 2
        else:
            assert after.descent == []
    if method == "deconvnet":
        last = noted[0].descent[-1]
        y, x = np.array(last.origin) - noted[0].origins[0]
        h, w = last.signal.shape[1:]
        np.testing.assert_allclose(last.signal, noted[0].reconstructions[0][:, y:y + h, x:x + w], atol=1e-6)


def test_fewer_images_than_places_give_fewer_tiles(net, views):
    images = torch.stack([views[index][0] for index in range(3)])
    top = deconvnet.scan(net, images, layers=["conv1"], k=9)
    for one in gallery(net, top, "conv1", range(6), images):
        assert len(one.patches) == int((top["conv1"].images[one.unit] >= 0).sum()) <= 3
        assert one.files == [f"image {index}" for index in one.images]


# ---- what has changed since the scan ----


def test_an_image_that_has_vanished_leaves_a_gap_that_is_named(net, tmp_path):
    for number, index in enumerate(range(0, 400, 40)):
        Image.fromarray(Photographs(net.preprocess, overlap=0).image(index)).save(tmp_path / f"{number}.png")
    data = ImageFolder(tmp_path, net.preprocess)
    top = deconvnet.scan(net, data, layers=["conv1"], k=4)
    before, = gallery(net, top, "conv1", [0], data)
    (tmp_path / before.files[1]).unlink()
    after, = gallery(net, top, "conv1", [0], data)
    kept = [0, 2, 3]
    assert after.missing == [(before.files[1], "no such file or directory")] and after.remark == "1 missing"
    assert after.files == [before.files[place] for place in kept]
    assert np.array_equal(after.patches, before.patches[kept])
    np.testing.assert_allclose(after.reconstructions, before.reconstructions[kept], rtol=1e-4, atol=1e-5)
    for path in tmp_path.iterdir():
        path.unlink()
    nothing, = gallery(net, top, "conv1", [0], data)
    assert nothing.remark == "4 missing" and len(nothing.missing) == 4 and len(nothing.patches) == 0


def test_other_weights_or_other_pixels_are_noticed(net, views, top):
    with pytest.raises(DeconvnetError, match=r"conv1:0 is .* and the scan found"):
        list(gallery(Small(seed=1), top, "conv1", [0], views))

    other = Views(Preprocess(SIZE, SIZE, mean=(0.4, 0.4, 0.4)))
    with pytest.raises(DeconvnetError, match="preprocessing"):
        list(gallery(net, top, "conv1", [0], other))


def test_other_images_are_noticed_by_their_names_or_their_number(net, views, top):
    with pytest.raises(DeconvnetError, match="names differ"):
        gallery(net, top, "conv1", [0], Views(net.preprocess, every=41))
    images = torch.stack([views[index][0] for index in range(len(views))])
    unnamed = deconvnet.scan(net, images, layers=["conv1"])
    with pytest.raises(DeconvnetError, match="there are only 2 images"):
        gallery(net, unnamed, "conv1", [0], images[:2])


# ---- what is refused at once ----


def test_images_that_are_smaller_than_those_of_the_scan_are_an_error_that_says_so(net, views, top):
    assert (top["conv1"].positions > 8).any()
    with pytest.raises(DeconvnetError, match=r"The maps of conv1 are .* of the scan were larger: .* preprocess"):
        list(gallery(net, top, "conv1", range(4), torch.stack([views[n][0][:, :12, :12] for n in range(len(views))])))


@pytest.mark.parametrize(("options", "words"), [
    ({"batch_size": 0}, "batch_size"), ({"batch_size": -1}, "batch_size"), ({"descent": -1}, "descent"),
    ({"memory": -1}, "memory")])
def test_a_number_that_makes_no_sense_is_an_error_that_says_what_does(net, views, top, options, words):
    with pytest.raises(UsageError, match=f"{words} must be a whole number"):
        gallery(net, top, "conv2", [0], views, **options)


@pytest.mark.parametrize(("layer", "units", "words"), [
    ("conv2", [0.7], "units are whole numbers, not 0.7"), ("conv9", [0], "conv1"),
    ("conv2", [8], "it has 8, 0 to 7"), ("conv2", [-1], "no unit -1 in layer 'conv2'")])
def test_a_layer_or_unit_that_does_not_exist_is_an_error_that_says_what_does(net, views, top, layer, units, words):
    with pytest.raises(UsageError, match=words):
        gallery(net, top, layer, units, views)


def test_images_that_cannot_be_asked_for_by_number_are_refused(net, top):
    with pytest.raises(UsageError, match="by number"):
        gallery(net, top, "conv1", [0], iter([torch.zeros(1, 3, SIZE, SIZE)]))


# ---- pixels ----


@settings(max_examples=200, deadline=None)
@given(st.integers(-12, 12), st.integers(-12, 12), st.integers(1, 9), st.integers(1, 9))
def test_a_window_is_the_image_inside_and_mid_grey_outside(top_, left, height, width):
    image = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(7, 5, 3)
    window = cut(image, (top_, left), (height, width))
    assert window.shape == (height, width, 3)
    for y in range(height):
        for x in range(width):
            inside = 0 <= top_ + y < 7 and 0 <= left + x < 5
            assert window[y, x].tolist() == (image[top_ + y, left + x].tolist() if inside else [128] * 3)


def test_without_preprocessing_an_image_is_stretched_over_its_own_range():
    inputs = torch.stack([torch.linspace(-2, 3, 12).reshape(3, 2, 2), torch.zeros(3, 2, 2)])
    pixels = stretched(inputs)
    assert pixels.shape == (2, 2, 2, 3) and pixels.dtype == np.uint8
    assert (pixels[0].min(), pixels[0].max()) == (0, 255) and (pixels[1] == 0).all()
    assert np.array_equal(stretched(inputs[:, :1])[..., 0], stretched(inputs[:, :1])[..., 2])
    with pytest.raises(UsageError, match="4 channels"):
        stretched(torch.zeros(1, 4, 2, 2))


def test_a_grey_network_gives_grey_tiles():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval()
    images = torch.rand(12, 1, 9, 9)
    top = deconvnet.scan(net, images, layers=["0"])
    for one in gallery(net, top, "0", [0, 1], images):
        assert one.reconstructions.shape[1:] == (3, 3, 3) and one.patches.shape[1:] == (3, 3, 3)
        assert np.array_equal(one.reconstructions[:, 0], one.reconstructions[:, 2])


def test_the_callers_own_inverse_goes_first(net, views, top):
    one, = gallery(net, top, "conv1", [0], views, inverse=lambda x: np.full((len(x), SIZE, SIZE, 3), 7, np.uint8))
    assert set(np.unique(one.patches)) <= {7, 128}


def test_the_data_sets_own_preprocessing_goes_before_the_networks(views, top):
    net = Small()
    net.preprocess = Preprocess(SIZE, SIZE, mean=(0, 0, 0))  # it was scanned with another
    one, = gallery(net, top, "conv1", [0], views)
    assert np.array_equal(one.patches[0], cut(views.image(int(one.images[0])), one.origins[0], (5, 5)))


# ---- units by name ----


@pytest.mark.parametrize(("text", "units"), [
    ("3", [3]), ("3,17,90-95", [3, 17, 90, 91, 92, 93, 94, 95]), (" 5 , 4-4 ", [5, 4]), ("7,3-8", [7, 3, 4, 5, 6, 8]),
    ("0-95", list(range(96)))])
def test_units_are_numbers_and_ranges_each_once_in_their_order(text, units):
    assert parse_units(text, "conv1", 96) == units


@pytest.mark.parametrize(("text", "words"), [
    ("", "numbers and ranges"), ("a", "'a'"), ("1,,2", "numbers and ranges"), ("-1", "numbers and ranges"),
    ("1-", "numbers and ranges"), ("1-2-3", "numbers and ranges"), ("1.5", "numbers and ranges"), ("²", "numbers"),
    ("96", "no unit 96 in layer 'conv1': it has 96, 0 to 95"), ("90-96", "no unit 96"), ("9-3", "backwards: 3-9"),
    ("0-999999999", "no unit 999999999"), ("9" * 5000, "numbers and ranges")])
def test_units_that_make_no_sense_are_refused_with_what_there_is(text, words):
    with pytest.raises(UsageError, match=words):
        parse_units(text, "conv1", 96)


def test_the_name_of_the_package_is_the_function():
    assert deconvnet.gallery is gallery and deconvnet.Gallery is Gallery
    assert issubclass(UnreadableImage, DeconvnetError)
