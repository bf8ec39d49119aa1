"""The command line, as a user meets it: through its words, its exit codes and the files that it leaves."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from torch import nn

import deconvnet
from deconvnet.cli import main
from deconvnet.commands import shared
from deconvnet.scanned import Scan
from deconvnet.topk import TopK

SOURCE = """
from collections import OrderedDict
import torch
from torch import nn
from deconvnet.images import Preprocess

def build():
    torch.manual_seed(0)
    net = nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(3, 6, 5, 2), relu1=nn.ReLU(), pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
        conv2=nn.Conv2d(6, 12, 3, padding=1), relu2=nn.ReLU(), flatten=nn.Flatten(), fc=nn.LazyLinear(4)))
    net(torch.zeros(1, 3, 32, 32))
    net.preprocess = Preprocess(32, 32)
    return net

def sigmoid():
    net = build()
    net.relu1 = nn.Sigmoid()
    return net
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a network of one's own and twelve images of two classes, one of them damaged."""
    (tmp_path / "mine.py").write_text(SOURCE)
    noise = np.random.default_rng(0)
    for n in range(12):
        folder = tmp_path / "photos" / ("cat" if n % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{n:02d}.png")
    (tmp_path / "photos" / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff not an image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scan(*more):
    return main(["scan", "--model", "mine.py:build", "--images", "photos", "--out", "out/top.safetensors", *more])


def test_modules_are_there_without_being_imported():
    code = ("import sys, deconvnet; print('torch' in sys.modules, deconvnet.images.Preprocess(28, 28).size, "
            "callable(deconvnet.scan), hasattr(deconvnet, 'nothing'), hasattr(deconvnet, '__wrapped__'))")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False 28 True False False\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminal without a size")
def test_a_terminal_that_does_not_say_how_wide_it_is_gets_bars():
    program = ("import atexit, os, sys; atexit.register(lambda: print(os.environ.get('TQDM_NCOLS'))); "
               "from deconvnet import cli; sys.argv = ['deconvnet', '--version']; cli.program()")
    terminal, there = os.openpty()
    for error, columns in ((there, "80"), (subprocess.PIPE, "None")):
        ran = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=error, text=True,
                             check=True)
        assert ran.stdout.splitlines()[-1] == columns
    os.close(terminal)
    os.close(there)


@pytest.mark.parametrize("model, said", [("zfnett", "Did you mean 'zfnet'?"), ("mine.py", "mine.py:build")])
def test_a_model_that_is_not_there_is_said_before_its_weights(model, said, place, capsys):
    assert main(["describe", model, "--weights", "demo"]) == 2
    assert said in capsys.readouterr().err


def test_a_gallery_in_the_folder_of_another_says_so(place, capsys):
    assert scan() == 0
    for units in ("conv1:0", "conv2:0"):
        assert "earlier gallery" not in capsys.readouterr().out
        assert main(["gallery", "out/top.safetensors", "--out", "sheets", "--units", units]) == 0
    assert "sheets has an earlier gallery" in capsys.readouterr().out


@pytest.mark.parametrize("there", [False, True])
def test_what_is_refused_leaves_no_folder_that_was_not_there(place, capsys, there):
    assert scan() == 0
    if there:
        (place / "sheets").mkdir()
    assert main(["gallery", "out/top.safetensors", "--out", "sheets/of/it", "--units", "conv1:999"]) == 2
    assert "no unit 999" in capsys.readouterr().err and (place / "sheets").is_dir() is there
    assert not (place / "sheets/of").exists()


def test_a_scan_that_is_refused_leaves_no_folder(place, capsys):
    assert main(["scan", "--model", "zfnett", "--images", "photos", "--out", "new/one/top.safetensors"]) == 2
    assert "Did you mean 'zfnet'" in capsys.readouterr().err and not (place / "new").exists()


def test_help_does_not_wait_for_torch():
    code = "import sys; from deconvnet.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.rstrip().endswith("False") and "deconvnet demo" in ran.stdout


LARGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not LARGE.exists() or "[never]" in LARGE.read_text(), reason="the system has no large pages")
def test_a_scan_has_large_pages_for_large_tensors():
    code = """if True:
        import resource
        from contextlib import suppress
        from deconvnet.commands.scanning import run_scan
        from deconvnet.errors import UsageError
        with suppress(UsageError):
            run_scan("none", "nowhere", "top.safetensors")
        import torch
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2 ** 26)  # 65,536 pages of the usual 4 KiB
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 60_000


@pytest.mark.parametrize("command", ["demo", "describe", "scan", "gallery", "train"])
def test_every_command_explains_every_option(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(type: " in text and "batch_size" not in text


@pytest.mark.parametrize("words, says", [
    ([], ""),
    (["descrbe"], "Did you mean describe?"),
    (["scan", "--modl", "x"], "Did you mean --model?"),
    (["scan", "--model", "x"], "required: images, out"),
    (["scan", "--model", "zfnet", "--images", "x", "--out", "y", "--top", "many"], "top"),
    (["describe", "zfnte"], "Did you mean 'zfnet'?"),
    (["describe", "--model", "zfnet"], "Did you mean MODEL without --model?"),
    (["train", "--config", "one.yaml", "--sed", "1"], "Did you mean --seed?"),
    (["gallery", "x", "--out", "y", "--contrast", "loud"], "contrast"),
])
def test_wrong_usage_is_2_and_says_what_is_right(words, says, capsys):
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error


def test_describe_prints_the_papers_sizes(capsys):
    assert main(["describe", "zfnet"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.split()}
    assert rows["conv2"][1:] == ["Conv2d", "256", "26", "5", "2", "0", "27", "8", "-1", "614,656", "yes"]
    assert rows["conv5"][7:10] == ["139", "16", "-49"]
    assert "62,357,608" in " ".join(rows["zfnet"])


@pytest.mark.parametrize("width, left", [(120, []), (85, ["padding"]), (80, ["padding", "from"])])
def test_describe_breaks_no_name_or_number_on_a_narrow_screen(width, left, capsys, monkeypatch):
    monkeypatch.setattr(shared, "_console", lambda: Console(width=width))
    assert main(["describe", "zfnet"]) == 0
    _, heads, *lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines}
    assert rows["conv4"][-2:] == ["1,327,488", "yes"] and "ContrastNorm" in rows["norm1"]
    assert max(map(len, lines)) <= width
    assert {name for name in ("layer", "kind", "padding", "from", "mirrored") if name not in heads} == set(left)
    told = "The window is too narrow for: " + ", ".join(left)
    assert any(line.startswith(told) for line in lines) is bool(left)


def test_describe_says_what_cannot_be_mirrored(place, capsys):
    assert main(["describe", "mine.py:sigmoid"]) == 0
    out = capsys.readouterr().out
    assert "sigmoid in relu1" in out and "no rule" in out
    rows = {line.split()[0]: line.split()[-1] for line in out.splitlines() if line.split()}
    assert rows["conv1"] == "yes" and rows["conv2"] == "no"


def test_scan_then_gallery(place, capsys):
    assert scan("--layers", "conv1,conv2", "--top", "4") == 0
    said = capsys.readouterr().out
    assert "cat/broken.jpg" in said and "1 of 13 images could not be read" in said
    begun = place / "sheets/units/.01234567-89-10.part"  # what one that was killed had not finished
    begun.parent.mkdir(parents=True)
    begun.touch()
    top = deconvnet.read_scan("out/top.safetensors")
    assert top["conv2"].values.shape == (12, 4) and len(top.files) == 13 and top.classes == ["cat", "dog"]
    assert main(["gallery", "out/top.safetensors", "--out", "sheets", "--units", "conv2:3,conv1:0-1"]) == 0
    made = {p.name for p in (place / "sheets").iterdir()}
    assert made >= {"conv1.png", "conv1.pdf", "conv2.png", "gallery.json", "units.csv"}
    assert {p.name for p in (place / "sheets/units").glob("*.png")} == {"conv2_3.png", "conv1_0.png", "conv1_1.png"}
    assert not begun.exists()
    numbers = json.loads((place / "sheets/gallery.json").read_text())
    assert [u["unit"] for u in numbers["units"]] == ["conv2:3", "conv1:0", "conv1:1"]
    unit = numbers["units"][0]
    assert unit["activations"] == pytest.approx(top["conv2"].values[3].tolist(), rel=1e-5)
    assert unit["boxes"][0][1][0] - unit["boxes"][0][0][0] == top_field(place)
    rows = list(csv.DictReader((place / "sheets/units.csv").read_text().splitlines()))
    assert len(rows) == 18 and rows[0]["unit"] == "conv1:0"
    for word, units in (("dead", "dead"), ("undiscriminating", "always")):
        found = [f"{layer}:{unit}" for layer in ("conv1", "conv2") for unit in getattr(top[layer], units)]
        assert [row["unit"] for row in rows if row["state"] == word] == found
        assert found or word == "dead"


def top_field(place):
    return deconvnet.receptive_field(deconvnet.load_model("mine.py:build"), "conv2", (32, 32)).size[0]


def test_no_output_holds_a_path(place):
    assert main(["scan", "--model", f"{place}/mine.py:build", "--images", str(place / "photos"), "--out",
                 str(place / "out/top.safetensors")]) == 0
    assert main(["gallery", str(place / "out/top.safetensors"), "--out", str(place / "out")]) == 0
    for file in (place / "out").iterdir():
        assert str(place).encode() not in file.read_bytes(), file.name


def test_a_gallery_finds_images_that_have_moved_when_told(place, capsys):
    assert scan() == 0
    (place / "photos").rename(place / "elsewhere")
    assert main(["gallery", "out/top.safetensors", "--out", "sheets"]) == 2
    assert "add --images" in capsys.readouterr().err
    assert main(["gallery", "out/top.safetensors", "--out", "sheets", "--images", "elsewhere"]) == 0


@pytest.mark.parametrize("model", ["evil:boom", "evil.py:boom", "os:getcwd", "../evil.py:boom", 7, None])
def test_a_scan_file_cannot_name_code_to_run(place, capsys, model):
    (place / "evil.py").write_text("def boom():\n    open('canary', 'w').close()\n")
    assert scan() == 0
    top = deconvnet.read_scan("out/top.safetensors")
    top.provenance["model"], top.provenance["weights_sha256"] = model, "0" * 64
    top.save("out/evil.safetensors")
    assert main(["gallery", "out/evil.safetensors", "--out", "sheets"]) == 2
    assert "add --model" in capsys.readouterr().err
    assert not (place / "canary").exists()
    assert main(["gallery", "out/evil.safetensors", "--out", "sheets", "--model", "evil.py:boom"]) == 1
    assert (place / "canary").exists(), "what the user names is run, or this test shows nothing"


def test_a_scan_without_provenance_says_so(place, capsys):
    net = deconvnet.load_model("mine.py:build")
    deconvnet.scan(net, deconvnet.open_images("photos", net.preprocess), layers=["conv1"]).save("bare.safetensors")
    assert main(["gallery", "bare.safetensors", "--out", "sheets"]) == 2
    assert "does not say what it was made from" in capsys.readouterr().err


def test_a_gallery_of_other_images_or_weights_is_refused(place, capsys):
    assert scan() == 0
    (place / "photos/dog/00.png").unlink()
    assert main(["gallery", "out/top.safetensors", "--out", "sheets"]) == 1
    assert "not those of the scan" in capsys.readouterr().err
    (place / "mine.py").write_text(SOURCE.replace("manual_seed(0)", "manual_seed(1)"))
    assert main(["gallery", "out/top.safetensors", "--out", "sheets"]) == 1
    assert "weights" in capsys.readouterr().err


def test_an_image_that_is_damaged_after_the_scan_is_named(place, capsys):
    assert scan() == 0
    file = place / "photos/dog/00.png"
    file.write_bytes(b"\0" * file.stat().st_size)
    assert main(["gallery", "out/top.safetensors", "--out", "sheets"]) == 0
    assert "missing since the scan: 'dog/00.png'" in capsys.readouterr().out


def test_a_weak_activation_is_no_reason_to_refuse(place):
    weak = "    net.conv2.bias.data.fill_(0)\n    net.conv2.weight.data[3] *= 1e-9\n"
    text = SOURCE.replace("    return net\n\ndef sig", f"{weak}    return net\n\ndef sig")
    assert text != SOURCE
    (place / "mine.py").write_text(text)
    assert scan("--layers", "conv2", "--batch-size", "13") == 0
    top = deconvnet.read_scan("out/top.safetensors")
    top["conv2"].values[3] *= 1.1  # as kernels round differently for another batch size
    top.save("out/top.safetensors")
    assert main(["gallery", "out/top.safetensors", "--out", "sheets", "--units", "conv2:3"]) == 0


def test_a_network_that_does_not_take_the_images_is_named(place, capsys):
    (place / "mine.py").write_text(SOURCE.replace("Preprocess(32, 32)", "Preprocess(48, 48)"))
    assert scan() == 1
    assert "cannot take an image of 3×48×48" in capsys.readouterr().err


def test_a_preprocess_of_ones_own_that_is_none_of_ours_is_refused(place, capsys):
    (place / "mine.py").write_text(SOURCE.replace("Preprocess(32, 32)", "print"))
    assert scan() == 2
    assert "must be a deconvnet.images.Preprocess" in capsys.readouterr().err


def test_what_was_not_foreseen_is_one_line_too(place, capsys, monkeypatch):
    monkeypatch.setattr("deconvnet.network.load_model", lambda *_: 1 / 0)
    assert scan() == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error and "Traceback" not in error and "--debug" in error


def test_a_scan_looks_through_the_weights_once(place, monkeypatch):
    """Those of a large network are half a gigabyte."""
    real, seen = nn.Module.state_dict, []

    def noted(self, *args, prefix="", **options):
        seen.extend([] if prefix else [self])
        return real(self, *args, prefix=prefix, **options)

    monkeypatch.setattr(nn.Module, "state_dict", noted)
    assert scan() == 0
    assert len(seen) == 1


def test_a_scan_that_cannot_be_saved_keeps_its_state(place, capsys, monkeypatch):
    def full(self, path):
        raise deconvnet.DeconvnetError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr(time, "monotonic", iter(range(0, 10**9, 100)).__next__)  # the state is saved at every batch
    monkeypatch.setattr(Scan, "write", full)
    assert scan("--batch-size", "4") == 1
    assert "No space left" in capsys.readouterr().err
    assert (place / "out/top.safetensors.partial").exists()


def test_strict_stops_at_the_first_image_that_cannot_be_read(place, capsys):
    assert scan("--strict") == 1
    assert "cat/broken.jpg" in capsys.readouterr().err
    assert not (place / "out/top.safetensors").exists()


@pytest.mark.parametrize("words, says", [(["--layers", "conv9"], "conv1"), (["--top", "0"], "k")])
def test_a_scan_of_what_does_not_exist(place, capsys, words, says):
    assert scan(*words) == 2
    assert says in capsys.readouterr().err


def test_a_folder_without_images(place, capsys):
    (place / "empty").mkdir()
    assert main(["scan", "--model", "mine.py:build", "--images", "empty", "--out", "top.safetensors"]) == 2
    assert "no images in empty" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said_before_the_work(place, capsys, monkeypatch):
    (place / "file").write_text("in the way")
    monkeypatch.setattr("deconvnet.network.load_model", lambda *_: pytest.fail("the work began"))
    assert main(["scan", "--model", "mine.py:build", "--images", "photos", "--out", "file/top.safetensors"]) == 1
    assert "Cannot write in file" in capsys.readouterr().err


def test_a_network_that_cannot_be_mirrored_is_refused_before_any_picture(place, capsys):
    words = ["--model", "mine.py:sigmoid", "--images", "photos", "--out", "top.safetensors", "--layers", "conv2"]
    assert main(["scan", *words]) == 0
    assert main(["gallery", "top.safetensors", "--out", "sheets"]) == 1
    assert "sigmoid in relu1" in capsys.readouterr().err
    assert not (place / "sheets").exists()


def test_options_from_a_file_and_from_the_line(place):
    options = ["model: mine.py:build", "images: photos", "out: top.safetensors", "top: 3", "layers: conv1"]
    (place / "scan.yaml").write_text("\n".join(options))
    assert main(["scan", "--config", "scan.yaml", "--top", "2"]) == 0
    top = deconvnet.read_scan("top.safetensors")
    assert list(top) == ["conv1"] and top["conv1"].values.shape == (6, 2)


@pytest.mark.parametrize("text, says", [
    ("modell: zfnet", "did you mean model"), ("top: many", "top"), ("top: 1\ntop: 2", "top is there twice"),
])
def test_a_wrong_key_is_named_with_its_file(place, capsys, text, says):
    (place / "scan.yaml").write_text(text)
    for words in (["--config", "scan.yaml"], ["--config=scan.yaml"]):
        assert main(["scan", *words]) == 2
        error = capsys.readouterr().err
        assert "scan.yaml" in error and says in error


def test_ctrl_c_is_130_and_the_same_command_goes_on(place, capsys, monkeypatch):
    whole, calls = TopK.keep, []

    def interrupted(self, found):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, found)

    assert scan("--batch-size", "4", "--layers", "conv1") == 0
    expected = (place / "out/top.safetensors").read_bytes()
    (place / "out/top.safetensors").unlink()
    monkeypatch.setattr(TopK, "keep", interrupted)
    assert scan("--batch-size", "4", "--layers", "conv1") == 130
    assert "same command again" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert scan("--batch-size", "4", "--layers", "conv1") == 0
    assert (place / "out/top.safetensors").read_bytes() == expected


def test_debug_shows_where_an_error_came_from(place):
    with pytest.raises(deconvnet.DeconvnetError):
        main(["describe", "nothing", "--debug"])


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_what_a_command_printed_arrives_though_it_is_ended_while_it_tidies_up(signal):
    code = ("import os, signal, sys; from deconvnet import cli; cli.main = lambda: print('all of it') or 0; "
            f"sys.exit = lambda code: signal.raise_signal(signal.{signal}); cli.program()")
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=buffered)
    assert ran.stdout == "all of it\n"


def test_a_signal_in_the_last_moment_does_not_change_the_code():
    """Python's last act is to undo handlers, but it leaves what is ignored."""
    asked = "print([signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGINT, signal.SIGTERM)])"
    program = (f"import atexit, signal, sys; atexit.register(lambda: {asked}); from deconvnet import cli; "
               "sys.argv = ['deconvnet', '--version']; cli.program()")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[True, True]"
