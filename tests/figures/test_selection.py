"""Figure 6 and deconvnet compare: what is shown is what the networks hold, the numbers are those of compare.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from goldens import assert_golden, assert_not_golden
from pydantic import ValidationError
from squeezenet import DATA

import deconvnet
from deconvnet import cli
from deconvnet.colours import normalise, robust_scale
from deconvnet.compare import beyond, measure, nyquist, spectrum
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.figures import selection
from deconvnet.figures.selection import Seen, Settings, Side, draw, draw_filters, draw_numbers
from deconvnet.gallery import Gallery
from deconvnet.render import reconstruction_sheet

pytestmark = pytest.mark.usefixtures("one_thread")
FINE, COARSE = Side(model=f"{small.HERE}:build"), Side(model=f"{small.HERE}:coarse")


@pytest.fixture
def settings(tmp_path):
    return Settings(left=COARSE, right=FINE, unrestrained=None, images=str(small.pictures(tmp_path / "pictures")),
                    count=2, measured=3, top=4)


# ---- what is computed ----


def test_the_numbers_are_those_of_the_weights_and_of_the_projections(settings):
    exhibit, table = selection.compare(settings, progress=False)
    for side, found in zip((settings.left, settings.right), exhibit.numbers["networks"], strict=True):
        net = deconvnet.load_model(side.model)
        stride = net.conv1.stride
        assert found["stride"] == list(stride) and found["projections"]["nyquist"] == [1 / (2 * stride[0])] * 2
        assert found["each"]["norm"] == pytest.approx(measure(net.conv1.weight).norm.tolist())
        assert len(found["each"]["aliased"]) == 3 and len(found["units"]) == 2
        images = deconvnet.open_images(settings.images, net.preprocess)
        inputs = torch.stack([images[n][0] for n in range(len(images))])
        tape, top = deconvnet.record(net, inputs), deconvnet.scan(net, inputs, ["conv1", "conv2"], k=4)
        assert found["filters"]["dead"] == int((tape.activations("conv1").amax((0, 2, 3)) <= 0).sum())
        unit = int(found["units"][0]["unit"].partition(":")[2])
        entries = [(image, unit, y, x) for image, (y, x) in zip(top["conv2"].images[unit].tolist(),
                                                              top["conv2"].positions[unit].tolist(), strict=True)]
        power = spectrum(deconvnet.project(tape, "conv2", entries).pixels.detach()).sum(0, keepdim=True)
        assert min(abs(float(beyond(power, nyquist(stride))) - one) for one in found["each"]["aliased"]) < 1e-4
    assert table.heads[1:] == [found["network"] for found in exhibit.numbers["networks"]]
    assert ["filters, stride", "10, 4", "10, 2"] in [list(row) for row in table.rows]


def test_the_same_settings_give_the_same_bytes(settings, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        exhibit, table = selection.compare(settings, progress=False)
        exhibit.write(tmp_path / name, "compare")
        table.write(tmp_path / name, "compare_table")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert {"compare.png", "compare.pdf", "compare_numbers.pdf", "compare_table.tex"} < set(files) and len(files) == 10
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    assert not any(str(tmp_path).encode() in (tmp_path / "one" / file).read_bytes() for file in files)


def test_a_first_layer_without_renormalisation_is_drawn_or_said_to_be_missing(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "has_weights", lambda model, weights: False)
    asked = settings.model_copy(update={"unrestrained": selection.UNRESTRAINED})
    missing = selection.make(asked, progress=False)
    assert "(a) is empty, because weights 'unrestrained' of zfnet do not ship" in missing.caption
    assert any(text.words == "no weights" for text in missing.drawing.texts) and "(b, c)" in missing.caption
    own = selection.make(asked.model_copy(update={"unrestrained": FINE}), progress=False)
    assert "(a) the first layer of a network that was trained without renormalisation" in own.caption
    assert len(own.drawing.tiles) == len(missing.drawing.tiles) - 1 + 10
    with pytest.raises(UsageError, match="no weights file elsewhere"):
        selection.make(asked.model_copy(update={"unrestrained": Side(model="zfnet", weights="elsewhere")}))


def test_units_that_never_fire_are_counted_and_a_silent_layer_is_refused(settings, tmp_path):
    net = deconvnet.load_model(FINE.model)
    net.conv1.bias.data[:3] = -100
    small.save_file(net.state_dict(), tmp_path / "some.safetensors")
    net.conv2.bias.data[:] = -100
    small.save_file(net.state_dict(), tmp_path / "none.safetensors")
    some, none = (FINE.model_copy(update={"weights": str(tmp_path / f"{n}.safetensors")}) for n in ("some", "none"))
    exhibit = selection.make(settings.model_copy(update={"left": some}), progress=False)
    assert exhibit.numbers["networks"][0]["filters"]["dead"] >= 3 and "some.safetensors" in exhibit.caption
    with pytest.raises(DeconvnetError, match="no unit of conv2 fires"):
        selection.make(settings.model_copy(update={"left": none}), progress=False)


@pytest.mark.skipif(not (DATA / "squeezenet").is_dir(), reason="needs SqueezeNet beside the checkout")
def test_networks_of_others_are_compared(settings):
    others = {"left": Side(model=f"{Path(small.HERE).parents[1] / 'squeezenet.py'}:build"),
              "right": Side(model="torchvision:resnet18", second="layer1.0.conv2")}
    exhibit = selection.make(settings.model_copy(update=others), progress=False)
    first, second = exhibit.numbers["networks"]
    assert (first["second"], second["second"]) == ("fire2_squeeze", "layer1.0.conv2") and second["stride"] == [2, 2]


# ---- what is drawn ----


def seen(seed, kernel, stride):
    """What might be seen of a network: 11 filters, and two units of the second layer, all different."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=(11, 3, kernel, kernel)) * np.linspace(0.2, 2, 11)[:, None, None, None]
    galleries = [Gallery("conv2", unit, np.arange(4.0, 0, -1), np.arange(4), np.zeros((4, 2), int), list("abcd"),
                         np.zeros((4, 2), int), draw.normal(size=(4, 3, 12, 12)).astype(np.float32),
                         np.zeros((4, 12, 12, 3), np.uint8)) for unit in (5, 40)]
    found = measure(torch.from_numpy(weight))
    return Seen(f"net {seed}", "conv1", "conv2", (stride, stride), weight, found, 1, galleries,
                draw.uniform(size=9) / stride, np.linspace(1, 0, 31) ** stride * np.ones((9, 1)))


def page(sides, missing=True):
    panels = [draw_filters(side.weight, f"({n}) {side.name}", 14) for n, side in zip("bc", sides, strict=True)]
    first = [draw_filters(None, "(a) none", 10)] if missing else []
    groups = [reconstruction_sheet(side.shown, 24, 4, title=f"({n}) {side.name}", columns=2)
              for n, side in zip("de", sides, strict=True)]
    return draw([*first, *panels], groups)


def test_the_page_is_the_one_that_was_looked_at():
    assert_golden(page([seen(1, 11, 4), seen(2, 7, 2)]), "selection")


@pytest.mark.parametrize("wrong", ["shifted", "swapped", "scale", "rows", "projection", "label"])
def test_a_wrong_page_is_seen(wrong):
    sides = [seen(1, 11, 4), seen(2, 7, 2)]
    weight, projections = sides[1].weight, sides[1].shown[1].reconstructions
    if wrong == "shifted":
        weight[:] = np.roll(weight, 1, 3)
    elif wrong == "swapped":
        weight[:] = weight[:, ::-1].copy()
    elif wrong == "scale":
        weight /= np.abs(weight).max((1, 2, 3), keepdims=True)
    elif wrong == "rows":
        weight[:] = weight[[0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8]]
    elif wrong == "projection":
        projections[:] = np.roll(projections, 1, 2)
    else:
        object.__setattr__(sides[1], "name", "another")
    assert_not_golden(page(sides), "selection")


def test_the_histograms_are_of_the_numbers():
    sides = [seen(1, 11, 4), seen(2, 7, 2)]
    axes = draw_numbers(sides).axes
    assert len(axes) == 8 and axes[1].get_title() == "dominant frequency,\ncycles per pixel"
    for place, values in ((1, "frequency"), (2, "orientation"), (3, "low"), (5, "likeness")):
        for side, outline in zip(sides, axes[place].patches, strict=True):
            shares, edges, _ = outline.get_data()
            found = getattr(side.filters, values)
            assert shares == pytest.approx(np.histogram(found, edges)[0] / 11) and shares.sum() == pytest.approx(1)
    for side, outline, line, limit in zip(sides, axes[6].patches, axes[7].lines[::2], axes[7].lines[1::2], strict=True):
        assert outline.get_data()[0] == pytest.approx(np.histogram(side.aliased, outline.get_data()[1])[0] / 9)
        assert line.get_ydata() == pytest.approx(side.energy.mean(0))
        assert set(limit.get_xdata()) == {1 / (2 * side.stride[0])}


def test_ninety_six_filters_stand_in_nine_rows_and_eleven_columns():
    weight = np.random.default_rng(0).normal(size=(96, 3, 7, 7))
    sheet = draw_filters(weight, "ours", 7)
    places = {(tile.x, tile.y): tile.pixels.tobytes() for tile in sheet.tiles}
    columns, rows = sorted({x for x, _ in places}), sorted({y for _, y in places})
    assert (len(columns), len(rows)) == (11, 9)
    scale = robust_scale(weight)
    assert all(places[columns[n // 9], rows[n % 9]] == normalise(one, scale).tobytes() for n, one in enumerate(weight))


def test_a_filter_that_dominates_leaves_the_others_grey():
    weight = np.random.default_rng(0).normal(size=(96, 3, 7, 7))
    weight[40] *= 50
    contrast = sorted(float(tile.pixels.std()) for tile in draw_filters(weight, "a").tiles)
    assert contrast[-1] > 50 and max(contrast[:-1]) < 8


# ---- what is refused ----


@pytest.mark.parametrize(("side", "words"), [
    (Side(model=f"{small.HERE}:grey"), r"small\.py:grey: conv1 has filters of 1 channels, and only filters of 3"),
    (Side(model=f"{small.HERE}:single"), r"small\.py:single has 1 convolution, and a comparison shows the first two"),
    (Side(model=f"{small.HERE}:flat"), r"small\.py:flat has no convolution"),
    (Side(model=FINE.model, second="convv2"), r"no layer 'convv2'\. Did you mean 'conv2'\? Its convolutions are: con"),
    (Side(model=FINE.model, first="conv2"), r"conv2 has filters of 10 channels"),
    (Side(model=FINE.model, first="pool1"), r"pool1 is no convolution"),
    (Side(model=f"{small.HERE}:blocked"), r"bend"),
    (Side(model="zfnett"), r"Did you mean 'zfnet'"),
    (Side(model="zfnet", weights="demoo"), r"no weights file demoo"),
])
def test_networks_that_cannot_be_compared_are_named_before_the_work(settings, side, words, monkeypatch):
    monkeypatch.setattr(selection, "scan", None)
    with pytest.raises(DeconvnetError, match=words):
        selection.make(settings.model_copy(update={"right": side}), progress=False)


def test_settings_out_of_range_are_refused():
    for wrong in ({"count": 0}, {"measured": 1000}, {"top": 0}, {"left": {"model": "zfnet", "weight": "demo"}}):
        with pytest.raises(ValidationError):
            Settings(**wrong)


# ---- the command ----


def test_the_command_compares_two_networks(settings, tmp_path, capsys):
    code = cli.main(["compare", COARSE.model, FINE.model, "--images", settings.images, "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert code == 0 and "layer 2: energy at and above the limit" in said and "Filter settings for" in said
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [one["stride"] for one in found["numbers"]["networks"]] == [[4, 4], [2, 2]]
    assert found["provenance"]["networks"][0]["images"] == "pictures"


def test_a_figure_of_two_networks_refuses_one(capsys):
    assert cli.main(["figure", "6", "--model", "zfnet"]) == 2
    assert "--model does not go with this one, whose settings are left, right" in capsys.readouterr().err
