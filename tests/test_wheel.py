"""What ships: the wheel, installed elsewhere, makes the picture of the README."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
ALONE = """
import pathlib, socket, sys
def refuse(*_, **__): raise OSError("the demo went to the network")
socket.socket.connect = socket.getaddrinfo = refuse
import deconvnet.cli
print(deconvnet.__file__)
code = deconvnet.cli.main()
status = pathlib.Path("/proc/self/status")  # not getrusage: what that says of a child begins with its parent's size
peak = status.read_text().partition("VmHWM:")[2].split()[0] if status.exists() else 0
print("peak of memory in MiB:", int(peak) // 1024)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder, and the wheel that is installed in it, built from a copy so that nothing stale gets in."""
    place = tmp_path_factory.mktemp("wheel")
    left = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "runs")
    copy = shutil.copytree(ROOT, place / "copy", ignore=left)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, copy], check=True,
                   capture_output=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", place / "site", wheel], check=True, capture_output=True)
    return place, wheel


def run(place, *words):
    environment = os.environ | {"PYTHONPATH": str(place / "site"), "XDG_CACHE_HOME": str(place / "cache")}
    command = [sys.executable, "-c", ALONE, *words]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_packages_and_weights_and_nothing_else(installed):
    names = zipfile.ZipFile(installed[1]).namelist()
    assert "deconvnet/models/weights/zfnet_demo.safetensors" in names and "deconvnet/models/zfnet.py" in names
    assert {name.split("/")[0] for name in names} == {"deconvnet", f"deconvnet-{version('deconvnet')}.dist-info"}


def test_the_demo_runs_from_the_wheel(installed):
    place, _ = installed
    ran = run(place, "demo", "--out", "pictures")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(place / "site")), "the checkout was used, not the wheel"
    assert int(ran.stdout.rstrip().rpartition(":")[2]) < 2048, ran.stdout
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


def test_an_atlas_is_made_from_the_wheel(installed):
    place, _ = installed
    ran = run(place, "atlas", "pictures/scan.safetensors", "--out", "atlas", "--layers", "conv1")  # of the demo above
    assert ran.returncode == 0, ran.stderr
    files = {path.name for path in (place / "atlas").rglob("*")}
    assert {"index.html", "atlas.css", "atlas.js", "unit.webp", "way.webp", "units.json"} <= files
