"""Figure 4: its cells against ``project``, its marks and numbers against a slow count, its drawing as it was seen."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from goldens import assert_golden, assert_not_golden
from pydantic import ValidationError

import deconvnet
from deconvnet import cli
from deconvnet.colours import normalise
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.figures import evolution
from deconvnet.figures.evolution import Block, Cell, Settings, draw, draw_settling, settle

pytestmark = pytest.mark.usefixtures("one_thread")
MODEL = f"{small.HERE}:build"


@pytest.fixture
def settings(tmp_path):
    return Settings(model=MODEL, weights=str(small.snapshots(tmp_path / "snapshots")),
                    images=str(small.pictures(tmp_path / "pictures")), epochs=(1, 2, 3, 5), layers=("conv1", "conv2"),
                    count=3)


# ---- what is computed ----


def slow(settings, epoch, layer, unit):
    """The strongest activation of a unit over all images, one by one: (image, value, projection)."""
    net = deconvnet.load_model(settings.model, settings.snapshot(epoch))
    images = deconvnet.open_images(settings.images, net.preprocess)
    best = (-1, 0.0, None)
    for number in range(len(images)):
        tape = deconvnet.record(net, images[number][0][None])
        maps = tape.activations(layer)[0, unit]
        if float(maps.max()) > best[1]:
            y, x = divmod(int(maps.argmax()), maps.shape[1])
            found = deconvnet.project(tape, layer, [(0, unit, y, x)])
            best = (number, float(maps.max()), found.pixels[0].numpy())
    return best


def made(settings):
    """The exhibit, and the blocks that were drawn for it."""
    blocks = []

    def keep(shown, *arguments, **options):
        blocks.extend(shown)
        return draw(shown, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evolution, "draw", keep)
        return evolution.make(settings, progress=False), blocks


def test_a_cell_is_the_projection_of_the_strongest_activation_at_its_epoch(settings):
    exhibit, blocks = made(settings)
    assert [block.layer for block in blocks] == ["conv1", "conv2"] and all(len(block.rows) == 3 for block in blocks)
    said = iter(exhibit.numbers["cells"])
    changes = 0
    for block in blocks:
        for unit, row in zip(block.units, block.rows, strict=True):
            before = None
            for epoch, cell in zip(settings.epochs, row, strict=True):
                if epoch == 3:
                    assert cell.pixels is None and cell.remark == "no snapshot"
                    continue
                image, _, pixels = slow(settings, epoch, block.layer, unit)
                if image < 0:
                    assert cell.pixels is None and cell.remark == "silent"
                    continue
                np.testing.assert_allclose(cell.pixels, pixels, rtol=1e-4, atol=1e-6)
                assert cell.changed == (before is not None and image != before)
                changes += cell.changed
                before = image
    assert changes > 0
    first = next(said)
    assert first["epoch"] == 1 and first["unit"].startswith("conv1:") and len(first["images"]) == 1


def test_the_same_settings_give_the_same_bytes_and_another_seed_other_maps(settings, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        evolution.make(settings, progress=False).write(tmp_path / name, "figure4")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["figure4.json", "figure4.pdf", "figure4.png", "figure4.txt", "figure4_settling.pdf",
                     "figure4_settling.png"]
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    assert str(tmp_path) not in (tmp_path / "one/figure4.json").read_text()
    other = evolution.make(settings.model_copy(update={"seed": 5}), progress=False)
    assert {one["unit"] for one in other.numbers["cells"]} != {
        one["unit"] for one in json.loads((tmp_path / "one/figure4.json").read_text())["numbers"]["cells"]}


def test_the_caption_says_what_is_missing_and_what_was_looked_at(settings):
    exhibit = evolution.make(settings, progress=False)
    for words in ("No snapshot: epoch 3.", "5 images", "epochs 1, 2, 5", "seed 0", "conv1: at least half",
                  "1.3 million"):
        assert words in exhibit.caption
    assert set(exhibit.origin["snapshots_sha256"]) == {"1", "2", "5"}
    assert exhibit.numbers["settling"]["conv1"]["correlation"][2] is None


def test_named_units_and_a_pattern_for_the_snapshots(settings):
    named = settings.model_copy(update={"units": "conv2:6,conv2:1", "weights": f"{settings.weights}/epoch-{{epoch}}."
                                        "safetensors", "epochs": (5,), "contrast": "unit"})
    exhibit, blocks = made(named)
    assert [(block.layer, list(block.units)) for block in blocks] == [("conv2", [6, 1])]
    assert "the maps conv2:6,conv2:1" in exhibit.caption and "one epoch alone" in exhibit.caption


def test_what_ships_is_found_by_its_epochs():
    chosen = Settings()
    assert [chosen.snapshot(epoch) for epoch in (1, 64)] == ["epoch-01", "epoch-64"]
    assert all(deconvnet.network.has_weights("zfnet", chosen.snapshot(epoch)) for epoch in chosen.epochs)


# ---- the numbers ----


def test_settling_is_counted_over_the_units_that_fire():
    wave, other = np.zeros((3, 2, 2)), np.zeros((3, 2, 2))
    wave[0], other[1] = 1, 1
    rows = [[Cell(other), Cell(None, remark="no snapshot"), Cell(wave + other), Cell(-2 * wave), Cell(wave)],
            [Cell(-wave), Cell(None, remark="no snapshot"), Cell(None, remark="silent"), Cell(4 * wave), Cell(wave)]]
    images = [np.array([0, 1, 2, -1]), None, np.array([0, 1, -1, 4]), np.array([3, 1, 5, 4]), np.array([3, 6, 5, 4])]
    found = settle(Block("conv1", [0, 1], rows), images)
    assert found["correlation"] == pytest.approx([-0.5, None, 0.5**0.5, 0.0, 1.0])
    assert found["same"] == pytest.approx([0, None, 1 / 3, 3 / 4, 1])
    assert found["changed"] == pytest.approx([None, None, 0, 1 / 3, 1 / 4])
    assert found["settled"] == 4 and found["settled_images"] == 3


def test_a_layer_that_never_changes_is_settled_from_the_start():
    cells = [Cell(np.full((3, 2, 2), 0.5 * n)) for n in (1, 2, 3)]
    found = settle(Block("conv1", [0], [cells]), [np.array([7])] * 3)
    assert found == {"correlation": pytest.approx([1, 1, 1]), "same": [1, 1, 1], "changed": [None, 0, 0],
                     "settled_images": 0, "settled": 0}


def test_a_projection_of_zeros_and_a_layer_of_silence_have_no_correlation():
    cells = [Cell(np.zeros((3, 2, 2))), Cell(None, remark="silent")]
    found = settle(Block("conv1", [0], [cells]), [np.array([-1]), np.array([-1])])
    assert found == {"correlation": [None, None], "same": [None, None], "changed": [None, None],
                     "settled_images": None, "settled": None}


# ---- what is drawn ----


def blocks():
    """Two layers of two maps at three epochs, with every kind of cell, each pixel different."""
    draw = np.random.default_rng(0)
    drawn = []
    for layer, side in (("conv1", 7), ("conv2", 16)):
        rows = [[Cell(draw.normal(size=(3, side, side)) * size, changed) for size, changed in
                 ((0.3, False), (1.0, True), (2.0, False))] for _ in range(2)]
        rows[0][1] = Cell(None, remark="no snapshot")
        rows[1][0] = Cell(None, remark="silent")
        drawn.append(Block(layer, [3, 141], rows))
    return drawn


def changed_cell(found, **values):
    """The same blocks, one cell changed."""
    found[1].rows[1][1] = replace(found[1].rows[1][1], **values)
    return found


def test_the_drawing_is_the_one_that_was_looked_at():
    assert_golden(draw(blocks(), (1, 20, 64), tile=48, contrast="unit"), "evolution")


@pytest.mark.parametrize("wrong", ["shifted", "swapped", "scale", "mark", "order", "label"])
def test_a_wrong_drawing_is_seen(wrong):
    found, contrast, epochs = blocks(), "unit", (1, 20, 64)
    pixels = found[1].rows[1][1].pixels
    if wrong == "shifted":
        found = changed_cell(found, pixels=np.roll(pixels, 1, 2))
    elif wrong == "swapped":
        found = changed_cell(found, pixels=pixels[::-1])
    elif wrong == "scale":
        contrast = "cell"
    elif wrong == "mark":
        found = changed_cell(found, changed=False)
    elif wrong == "order":
        found[0].rows[0].reverse()
    else:
        found[1].units[1] = 888
    assert_not_golden(draw(found, epochs, tile=48, contrast=contrast), "evolution")


def test_each_cell_has_its_own_scale_or_each_map():
    for contrast in ("cell", "unit"):
        tiles = [tile.pixels.tobytes() for tile in draw(blocks(), (1, 20, 64), contrast=contrast).tiles]
        row = [cell.pixels for cell in blocks()[1].rows[1][1:]]
        scale = None if contrast == "cell" else evolution.robust_scale(np.stack(row))
        assert all(normalise(pixels, scale).tobytes() in tiles for pixels in row)


def test_cells_of_different_sizes_are_refused():
    rows = [[Cell(np.ones((3, 4, 4))), Cell(np.ones((3, 5, 5)))]]
    with pytest.raises(UsageError, match="of one size"):
        draw([Block("conv1", [0], rows)], (1, 2))


def test_the_curves_are_those_that_were_looked_at():
    settling = {"conv1": {"correlation": [0.5, 0.9, 1], "same": [0.6, 0.8, 1], "changed": [None, 0.3, 0.2]},
                "conv5": {"correlation": [0.0, None, 1], "same": [0.1, None, 1], "changed": [None, None, 0.9]}}
    assert_golden(draw_settling(settling, (1, 20, 64)), "settling")
    settling["conv5"]["same"][0] = 0.6
    assert_not_golden(draw_settling(settling, (1, 20, 64)), "settling")


# ---- what is refused ----


@pytest.mark.parametrize(("change", "words"), [
    ({"layers": ("conv1", "convv2")}, r"no layer 'convv2'. Did you mean 'conv2'"),
    ({"units": "conv2:8"}, "there is no unit 8 in layer 'conv2': it has 8, 0 to 7"),
    ({"units": "conv3:1"}, "conv3"),
    ({"weights": None}, "figure 4 needs snapshots .* --weights"),
    ({"epochs": (7, 9)}, r"no snapshot .*epoch-07.* There are: epoch-01.safetensors, epoch-02"),
    ({"model": "zfnett", "weights": "epoch-{epoch}"}, "no snapshot epoch-01 of zfnett"),
    ({"images": "nowhere"}, "nowhere"),
])
def test_bad_settings_are_named_before_the_work(settings, change, words, monkeypatch):
    monkeypatch.setattr(evolution, "gallery", None)
    with pytest.raises(UsageError, match=words):
        evolution.make(settings.model_copy(update=change), progress=False)


def test_a_folder_with_a_slip_is_named_with_the_one_that_was_meant(settings):
    with pytest.raises(UsageError, match=r"no folder .*snapshot\. Did you mean .*snapshots\?"):
        evolution.make(settings.model_copy(update={"weights": settings.weights[:-1]}), progress=False)


def test_a_damaged_snapshot_in_the_middle_is_named_before_the_work(settings, monkeypatch):
    monkeypatch.setattr(evolution, "gallery", None)
    file = Path(settings.snapshot(2))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DeconvnetError, match="epoch-02"):
        evolution.make(settings, progress=False)


def test_a_layer_that_cannot_be_mirrored_is_refused(settings, tmp_path):
    torch.manual_seed(0)
    small.save_file(small.blocked().state_dict(), tmp_path / "epoch-01.safetensors")
    wrong = settings.model_copy(update={"model": f"{small.HERE}:blocked", "weights": str(tmp_path)})
    with pytest.raises(DeconvnetError, match="bend"):
        evolution.make(wrong, progress=False)


@pytest.mark.parametrize("epochs", [(2, 1), (1, 1), (), (-1, 2)])
def test_epochs_rise(epochs):
    with pytest.raises(ValidationError):
        Settings(epochs=epochs)


def test_the_command_draws_ones_own_snapshots(settings, tmp_path, capsys):
    config = tmp_path / "own.yaml"
    config.write_text("layers: [conv2]\nepochs: [1, 5]\ncount: 2\n")
    code = cli.main(["figure", "4", "--config", str(config), "--model", MODEL, "--weights", settings.weights,
                     "--images", settings.images, "--out", str(tmp_path / "out")])
    assert code == 0 and (tmp_path / "out" / "figure4.png").stat().st_size > 1000
    assert "snapshots" in capsys.readouterr().out
