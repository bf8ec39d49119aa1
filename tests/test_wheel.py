"""What ships: the wheel, installed elsewhere, makes the picture of the README."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel in it, and a copy of the checkout from which it was built nowhere on the path."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", place, ROOT], check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", place / "site", wheel], check=True, capture_output=True)
    return place, wheel


def run(place, *words):
    environment = os.environ | {"PYTHONPATH": str(place / "site"), "XDG_CACHE_HOME": str(place / "cache")}
    code = "import sys, deconvnet.cli; print(deconvnet.__file__); sys.exit(deconvnet.cli.main())"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_packages_and_weights_and_nothing_else(installed):
    names = zipfile.ZipFile(installed[1]).namelist()
    assert "deconvnet/models/weights/zfnet_demo.safetensors" in names and "deconvnet/models/zfnet.py" in names
    assert {name.split("/")[0] for name in names} == {"deconvnet", f"deconvnet-{version(names)}.dist-info"}


def version(names):
    return next(name.split("-")[1].split(".dist-info")[0] for name in names if ".dist-info/" in name)


def test_the_demo_runs_from_the_wheel(installed):
    place, _ = installed
    ran = run(place, "demo", "--out", "pictures")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(place / "site")), "the checkout was used, not the wheel"
    made = {path.name for path in (place / "pictures").iterdir()}
    names = ("figure2", "conv1", "conv2", "conv3", "conv4", "conv5")
    sheets = {f"{name}.{ending}" for name in names for ending in ("png", "pdf")}
    assert made == sheets | {"gallery.json", "units.csv", "scan.safetensors"}
    page = np.asarray(Image.open(place / "pictures/figure2.png").convert("RGB"), np.float32)
    assert min(page.shape[:2]) > 1000 and page.std() > 20, "blank or grey"
    units = json.loads((place / "pictures/gallery.json").read_text())["units"]
    assert [sum(unit["unit"].startswith(f"conv{n}:") for unit in units) for n in range(1, 6)] == [9, 16, 12, 10, 10]
    assert all(unit["activations"] == sorted(unit["activations"], reverse=True) for unit in units)
    for path in (place / "pictures").iterdir():
        assert str(place).encode() not in path.read_bytes(), path.name
