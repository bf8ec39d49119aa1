"""Folders in which good pictures lie among bad ones, scanned: none can stop a scan, and none changes what it finds."""

import faulthandler
import os
import random
import sys
import warnings

import numpy as np
import pytest
import torch
from bad_images import BMP, GIF, JPEG, PNG, PPM, PROGRESSIVE, TIFF, WEBP, write_bad
from mortal import live
from PIL import Image
from test_cli import SOURCE
from torch import nn

from deconvnet import images, read_scan, scan
from deconvnet.cli import main
from deconvnet.errors import DeconvnetError, UnreadableImage
from deconvnet.images import ImageFolder, Preprocess, read_image

GOOD = {"jpg": JPEG, "png": PNG, "gif": GIF, "bmp": BMP, "webp": WEBP, "tif": TIFF, "ppm": PPM}
NAMES = ["plain", "two words", "new\nline", "<img src=x onerror=alert(1)>", "{{7*7}}", "-o", "con", "e\u0301", "\xe9",
         "\U0001f408", "n" * 251, "a'b\"c", "%s%n", "up..there", "tab\t", "$(id)"]
NAMES += ["\udcff"] if sys.platform == "linux" else []  # a byte that is no text
"""Names that shells, pages, formats or file systems have stumbled over."""


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 5, stride=2), nn.ReLU(), nn.Conv2d(5, 7, 3)).eval()


def write_good(folder, names=NAMES):
    """A picture of its own under each name."""
    draw = np.random.default_rng(0)
    for name in names:
        pixels = draw.integers(0, 256, (48, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")


def mutants(count):
    """So many good files with some bytes changed, most of them at the beginning, or cut off: ending and content."""
    draw = random.Random(0)
    forms = [*GOOD.items(), ("jpg", PROGRESSIVE)]
    for number in range(count):
        ending, good = forms[number % len(forms)]
        data = bytearray(good)
        for _ in range(draw.choice([1, 1, 4, 30])):
            data[int(len(data) * draw.random() ** 3)] = draw.randrange(256)
        yield ending, bytes(data[:draw.choice([len(data), len(data), draw.randrange(len(data))])])


def folder_of(path):
    return ImageFolder(path, Preprocess(32, 32))


def found(top, layer):
    """What a scan found in a layer, with the images by name: one row of numbers and names for each unit."""
    one = top[layer]
    names = [[top.files[image] if image >= 0 else "" for image in row] for row in one.images.tolist()]
    return names, one.values.tolist(), one.positions.tolist(), one.fired.tolist()


def sampled(top, layer):
    sample = top[layer].sample
    return {top.files[image]: row.tolist() for image, row in zip(sample.images.tolist(), sample.maxima, strict=True)}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_found_in_good_files_is_the_same_to_the_bit_without_the_bad_ones(net, tmp_path, workers):
    alone, among = tmp_path / "alone", tmp_path / "among"
    for folder in (alone, among):
        folder.mkdir()
        write_good(folder)
    bad = write_bad(among)
    assert len(bad) >= 40
    without = scan(net, folder_of(alone), batch_size=8)
    top = scan(net, folder_of(among), batch_size=8, workers=workers)
    assert {name for name, _ in top.skipped} == set(bad) and all(reason for _, reason in top.skipped)
    assert top.count == without.count == len(NAMES)
    for layer in without:
        assert found(top, layer) == found(without, layer)
        assert sampled(top, layer) == sampled(without, layer)


@pytest.mark.timeout(300)
def test_none_of_five_thousand_changed_files_stops_a_scan(net, tmp_path):
    refused = []
    for number, (ending, content) in enumerate(mutants(5000)):
        file = tmp_path / f"{number:05}.{ending}"
        file.write_bytes(content)
        try:
            assert read_image(file).mode == "RGB"
        except UnreadableImage:
            refused.append(file.name)
    top = scan(net, folder_of(tmp_path), workers=2)
    assert [name for name, _ in top.skipped] == refused
    assert top.count + len(refused) == 5000 and min(top.count, len(refused)) > 1000
    for name in refused:
        (tmp_path / name).unlink()
    without = scan(net, folder_of(tmp_path))
    assert len(without.files) == top.count and not without.skipped
    assert all(found(top, layer) == found(without, layer) for layer in without)


def test_a_command_outlives_a_decoder_that_crashes_though_nobody_asked_for_workers(tmp_path, monkeypatch):
    def read(path, *settings):
        if path.name == "b.png":
            faulthandler.disable()
            os.abort()
        return read_image(path, *settings)

    def act():
        with warnings.catch_warnings(action="ignore"):  # that a process died
            assert main(["scan", "--model", "mine.py:build", "--images", "photos", "--out", "top.safetensors"]) == 0

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "photos").mkdir()
    write_good(tmp_path / "photos", "abcd")
    monkeypatch.setattr(images, "read_image", read)
    assert live(act) == 0
    top = read_scan("top.safetensors")
    assert top.count == 3 and top.skipped == [("b.png", "whatever decodes it dies of it (SIGABRT)")]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("how", ["taken away", "emptied"])
def test_a_folder_that_is_gone_in_mid_run_ends_the_scan_which_goes_on_when_it_is_back(net, tmp_path, how, workers):
    """As a disk that is taken away: to skip every image from there on would leave a result that stands for all."""
    place, away = tmp_path / "images", tmp_path / "away"
    place.mkdir()
    write_good(place, [f"{n:02}" for n in range(12)])
    whole = scan(net, folder_of(place), ["0"], batch_size=1)
    once = []

    def vanish(*_):
        if not once:
            once.append(place.rename(away))
            if how == "emptied":
                place.mkdir()

    said = r"images (is empty now|cannot be read any more)"
    with net[0].register_forward_hook(vanish), pytest.raises(DeconvnetError, match=said):
        scan(net, folder_of(place), ["0"], batch_size=1, workers=workers, checkpoint=tmp_path / "state")
    if how == "emptied":
        place.rmdir()
    away.rename(place)
    again = scan(net, folder_of(place), ["0"], batch_size=1, workers=workers, checkpoint=tmp_path / "state")
    assert not again.skipped and found(again, "0") == found(whole, "0")
