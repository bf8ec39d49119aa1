"""A function of one's own: found in any folder, with what lies beside it, whatever else is called so."""

import subprocess
import sys

import pytest
import torch

import deconvnet
from deconvnet.errors import DeconvnetError, UsageError

NET = """
from torch import nn
{}
def build():
    {}
    net = nn.Sequential()
    net.conv1 = nn.Conv2d(3, WIDTH, 3)
    return net
"""


def width(name):
    return deconvnet.load_model(name).conv1.out_channels


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Nothing that is found is found by the current folder, nor by another test."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("line", ["from sizes import WIDTH", "from .sizes import WIDTH",
                                  "from . import sizes; WIDTH = sizes.WIDTH", "import sizes; WIDTH = sizes.WIDTH",
                                  "from parts.sizes import WIDTH", "from .parts.sizes import WIDTH"])
@pytest.mark.parametrize("late", [False, True])
def test_what_lies_beside_is_found(tmp_path, line, late):
    text = NET.format("", line) if late else NET.format(line, "")
    write(tmp_path / "a", {"net.py": text, "sizes.py": "WIDTH = 5", "parts/sizes.py": "WIDTH = 5"})
    assert width(f"{tmp_path}/a/net.py:build") == 5


def test_a_path_from_the_current_folder(tmp_path, monkeypatch):
    write(tmp_path / "a", {"net.py": NET.format("from sizes import WIDTH", ""), "sizes.py": "WIDTH = 5"})
    assert width("../a/net.py:build") == 5
    monkeypatch.chdir(tmp_path / "a")
    assert width("net.py:build") == width("net:build") == 5


def test_two_networks_with_files_of_the_same_names(tmp_path):
    for number, folder in ((3, "a"), (4, "b")):
        write(tmp_path / folder, {"net.py": NET.format("from sizes import WIDTH", ""), "sizes.py": f"WIDTH = {number}"})
    found = [width(f"{tmp_path}/{folder}/net.py:build") for folder in "abab"]
    assert found == [3, 4, 3, 4]


@pytest.mark.parametrize("name", ["scan", "models", "network", "images", "json", "types", "torch", "numpy", "deconvnet",
                                  "onnx", "tqdm", "my-net", "net.v2", "test", "__init__"])
def test_its_name_may_be_that_of_any_module(tmp_path, name):
    before = dict(sys.modules)
    write(tmp_path / "a", {f"{name}.py": NET.format("import torch, numpy, json; from torch import nn; WIDTH = 6", "")})
    assert width(f"{tmp_path}/a/{name}.py:build") == 6
    changed = [key for key, module in before.items() if sys.modules.get(key) is not module]
    assert not changed, "everybody else's modules are as they were"
    assert torch.nn.Conv2d is sys.modules["torch"].nn.Conv2d


@pytest.mark.parametrize("name", ["tqdm", "models", "scan", "yaml", "sizes"])
def test_a_module_beside_goes_before_one_elsewhere(tmp_path, name):
    import tqdm
    write(tmp_path / "a", {"net.py": NET.format(f"from {name} import WIDTH", ""), f"{name}.py": "WIDTH = 7"})
    assert width(f"{tmp_path}/a/net.py:build") == 7
    assert sys.modules["tqdm"] is tqdm and tqdm.tqdm


def test_a_file_in_a_package_reaches_the_rest_of_it(tmp_path):
    write(tmp_path / "a", {
        "kit/__init__.py": "", "kit/sizes.py": "WIDTH = 8", "kit/nets/__init__.py": "", "kit/nets/more.py": "EXTRA = 1",
        "kit/nets/net.py": NET.format("from ..sizes import WIDTH\nfrom .more import EXTRA\nimport kit.sizes", "")})
    assert width(f"{tmp_path}/a/kit/nets/net.py:build") == 8


def test_a_package_that_cannot_be_imported_does_not_stand_in_the_way(tmp_path):
    write(tmp_path / "a", {"kit2/__init__.py": "import nowhere_at_all", "kit2/sizes.py": "WIDTH = 8",
                           "kit2/net.py": NET.format("from .sizes import WIDTH", "")})
    assert width(f"{tmp_path}/a/kit2/net.py:build") == 8


def test_dataclasses_and_annotations_work(tmp_path):
    text = ("from __future__ import annotations\nfrom dataclasses import dataclass\n"
            "@dataclass\nclass Size:\n    width: int\n")
    write(tmp_path / "a", {"net.py": text + NET.format("WIDTH = Size(9).width", "")})
    assert width(f"{tmp_path}/a/net.py:build") == 9


def test_a_file_that_changed_is_read_anew(tmp_path):
    for number in (3, 4):
        write(tmp_path / "a", {"net.py": NET.format("from .sizes import WIDTH", ""),
                               "sizes.py": f"WIDTH = {number}  # {'x' * number}"})
        assert width(f"{tmp_path}/a/net.py:build") == number


def test_the_path_is_as_it_was(tmp_path):
    before = list(sys.path)
    write(tmp_path / "a", {"net.py": NET.format("import sys; sys.path.append('a-folder-of-mine'); WIDTH = 2", "")})
    width(f"{tmp_path}/a/net.py:build")
    assert sys.path == [*before, "a-folder-of-mine"]
    sys.path.remove("a-folder-of-mine")


# ---- what is said where it does not work ----

@pytest.mark.parametrize(("text", "kind", "words"), [
    ("import nowhere_at_all", DeconvnetError, "cannot be imported: ModuleNotFoundError"),
    ("def build(:", DeconvnetError, "cannot be imported: SyntaxError"),
    ("raise SystemExit(0)", DeconvnetError, "cannot be imported: SystemExit"),
    ("def biuld(): pass", UsageError, "Did you mean 'biuld'"), ("build = 3", UsageError, "no function 'build'"),
    ("def build(): return 3", DeconvnetError, "returned a int"),
    ("def build(): raise SystemExit(1)", DeconvnetError, "failed to build"),
    ("def build(): import nowhere_at_all", DeconvnetError, "failed to build"),
])
def test_the_file_that_was_loaded_is_named(tmp_path, text, kind, words):
    write(tmp_path / "a", {"net.py": text})
    with pytest.raises(kind, match=words) as error:
        deconvnet.load_model("../a/net.py:build")
    assert str(tmp_path / "a" / "net.py") in str(error.value)


def test_so_is_that_of_a_module_of_the_same_name(tmp_path, monkeypatch):
    write(tmp_path / "a", {"torch.py": NET.format("WIDTH = 2", "")})
    monkeypatch.chdir(tmp_path / "a")
    with pytest.raises(UsageError, match="no function 'build' in torch") as error:
        deconvnet.load_model("torch:build")
    assert torch.__file__ in str(error.value) and "torch.py:FUNCTION" in str(error.value)
    assert width("torch.py:build") == 2


def test_from_the_command_line_in_another_folder(tmp_path):
    write(tmp_path / "a", {"models.py": NET.format("from .scan import WIDTH", ""), "scan.py": "WIDTH = 5"})
    ran = subprocess.run([sys.executable, "-m", "deconvnet", "describe", "../a/models.py:build", "--size", "16"],
                         capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "conv1" in ran.stdout, ran.stderr
