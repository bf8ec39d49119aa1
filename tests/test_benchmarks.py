"""The benchmarks run, and tell what they say they tell. How fast anything is, is no matter of tests."""

import importlib.util
import json
import warnings
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import nn

from deconvnet import scan
from deconvnet.images import Photographs, Preprocess

FOLDER = Path(__file__).parents[1] / "benchmarks"


def opened(name: str) -> ModuleType:
    """A benchmark as Python opens it, with what lies beside it in reach."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def training() -> ModuleType:
    return opened("training")


def tiny(training: ModuleType, config: str):
    return training.case(config, f"{config}.yaml", 128, 4, widths=[4] * 5, hidden=[4, 4], batch=2)


def test_the_training_benchmark_prints_a_table_and_writes_each_repetition(
        training, tmp_path, capsys, one_thread) -> None:
    cases = [tiny(training, config) for config in ("zfnet_demo", "zfnet_paper")]
    training.report(cases, 2, 3, None, str(tmp_path / "out.json"), "cpu")
    lines = capsys.readouterr().out.splitlines()
    assert any("1 threads" in line and "torch" in line for line in lines)
    result = json.loads((tmp_path / "out.json").read_text())
    assert result.keys() >= {"versions", "threads", "cores", "goal"} and result["clock"] == "cpu"
    for name, precision, row in zip(("zfnet_demo", "zfnet_paper"), ("bfloat16", "float32"), result["rows"],
                                    strict=True):
        assert (row["name"], row["precision"], row["size"], row["batch"], row["steps"]) == (name, precision, 128, 2, 2)
        assert row["ratio"] == row["loop"] / row["bare"] and row["lowest"] <= row["highest"]
        assert len(row["repetitions"]) == 3 and all(each["loop"] > 0 < each["bare"] for each in row["repetitions"])
        assert all(each["waiting"] + each["step"] + each["elsewhere"] == pytest.approx(1)
                   and min(each["waiting"], each["step"]) > 0 for each in row["repetitions"])
        assert any(name in line and f"{row['ratio']:.3f}" in line for line in lines)


def test_the_bare_step_has_the_network_and_the_tensors_of_the_loop(training, one_thread) -> None:
    recipe = tiny(training, "zfnet_demo").recipe
    loop = training.Loop(recipe, training.noise(4))
    bare = training.Bare(loop)
    assert bare.net is not loop.net and str(bare.net) == str(loop.net) and bare.net.training
    assert [tuple(inputs.shape) for inputs, _ in bare.batches] == [(2, 3, 128, 128)] * loop.steps
    before = loop.net.fc8.weight.clone()
    bare.measure()
    assert (loop.net.fc8.weight == before).all() and (bare.net.fc8.weight != before).any()


def test_pictures_of_a_folder_are_taken_again_where_it_has_few(training, tmp_path) -> None:
    for number in range(6):
        folder = tmp_path / f"class {number % 2}"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (150, 140), (number, 0, 0)).save(folder / f"{number}.png")
    data = training.pictures(tiny(training, "zfnet_demo").recipe, 100, str(tmp_path))
    assert len(data.train) == 100 and len(data.classes) == 2 and not len(data.held_out)
    first = [int(data.train[n][0, 0, 0]) for n in range(6)]
    assert sorted(first) == [0, 1, 2, 3, 4, 5] and int(data.train[97][0, 0, 0]) == first[97 % 6]
    assert data.train.labels[:6] == [red % 2 for red in first]


def test_help_teaches(training, capsys) -> None:
    with pytest.raises(SystemExit):
        training.run(training.benchmark, "training.py", ["--help"])
    text = capsys.readouterr().out
    assert "python benchmarks/training.py" in text and "below 0.9" in text and "after two warm-ups" in text


def test_every_benchmark_is_described() -> None:
    described = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(file.name in described for file in FOLDER.glob("*.py") if file.name != "running.py")


def test_the_occlusion_benchmark_compares_as_many_forward_passes(tmp_path, capsys, one_thread, monkeypatch) -> None:
    occlusion = opened("occlusion")
    net = nn.Sequential(nn.Conv2d(3, 2, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    net.preprocess, passed = Preprocess(32, 32), []
    net.register_forward_pre_hook(lambda module, given: passed.append(len(given[0])))
    monkeypatch.setattr(occlusion, "load_model", lambda model, weights: net)
    occlusion.benchmark(layer="0", square=10, stride=2, repetitions=2, clock="cpu", out=str(tmp_path / "out.json"))
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["positions"] == 144 and len(result["ratios"]) == 2 and result["ratio"] > 0
    assert f"ratio {result['ratio']:.3f}" in capsys.readouterr().out
    assert sum(passed) == (64 + 1 + 1) + 2 * (144 + 144 + 1)  # warm-up and turns; the 1 is the image as it is


def test_the_atlas_benchmark_compares_galleries_and_pages_of_the_same_units(
        tmp_path, capsys, one_thread, monkeypatch) -> None:
    atlas = opened("atlas")
    net = nn.Sequential(nn.Conv2d(3, 4, 7, 4), nn.ReLU()).eval()
    net.preprocess = Preprocess(32, 32)
    monkeypatch.setattr(atlas, "load_model", lambda model, weights: net)
    monkeypatch.setattr(atlas, "open_images", lambda images, preprocess: Photographs(preprocess, overlap=0))
    atlas.benchmark(weights=None, layers=["0"], repetitions=2, clock="cpu", out=str(tmp_path / "out.json"))
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["units"] == 4 and len(result["turns"]) == 2
    assert all(one["atlas"] > 0 and one["galleries"] > 0 for one in result["turns"])
    assert result["files"] > 4 * 2 and 0 < result["megabytes"] < 1
    assert f"ratio {result['ratio']:.3f}" in capsys.readouterr().out


def test_the_projection_benchmark_counts_the_arithmetic_of_the_windows(
        tmp_path, capsys, one_thread, monkeypatch) -> None:
    projection = opened("projection")
    monkeypatch.setattr(projection, "SIDE", 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum's, of the hooks that it sets
        projection.benchmark(layers=["conv1", "conv2"], count=4, few=1, repetitions=1, out=str(tmp_path / "out.json"))
    result = json.loads((tmp_path / "out.json").read_text())
    counted = {layer: one["multiply_adds"] for layer, one in result["layers"].items()}
    assert counted == {"conv1": 3 * 7 * 7, "conv2": 96 * 5 * 5 + 96 * 11 * 11 * 3 * 7 * 7}
    assert result["all"] > 0 and "times as fast" in capsys.readouterr().out


def test_the_scan_benchmark_compares_passes_that_end_at_the_last_convolution(
        tmp_path, capsys, one_thread, monkeypatch) -> None:
    bench = opened("scan")
    net = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 7, 4), relu1=nn.ReLU(), conv2=nn.Conv2d(4, 2, 1),
                                    after=nn.Flatten())).eval()
    net.preprocess, passed = Preprocess(32, 32), []
    net.conv2.register_forward_pre_hook(lambda module, given: passed.append(len(given[0])))
    net.after.register_forward_hook(lambda *_: passed.append("too far"))
    monkeypatch.setattr(bench, "load_model", lambda model, weights: net)
    bench.benchmark(networks=["tiny"], count=5, batch=4, repetitions=2, clock="cpu", out=str(tmp_path / "out.json"))
    result = json.loads((tmp_path / "out.json").read_text())
    one = result["networks"]["tiny"]
    assert result["images"] == 5 and len(one["turns"]) == 2 and all(one[name] > 0 for name in bench.COLUMNS)
    assert one["above"] == one["scan"] / min(one["contiguous"], one["channels_last"])
    assert one["ratio"] == one["hooks"] / one["scan"]
    assert f"{one['above']:.2f}" in capsys.readouterr().out
    assert passed == 3 * ([4, 1] * 3 + [1, 1, 1, 4, 4])  # the scan first tries single images, and fills up its batches


def test_the_hooks_of_the_scan_benchmark_find_what_the_scan_finds(one_thread) -> None:
    bench = opened("scan")
    net = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 3), relu1=nn.ReLU(), conv2=nn.Conv2d(4, 6, 3))).eval()
    images = torch.randn(20, 3, 9, 8)
    best, top = bench.with_hooks(net, images.split(6)), scan(net, images, batch_size=6)
    for layer, found in best.items():
        torch.testing.assert_close(found.values.T.clamp(min=0), top[layer].values, rtol=1e-5, atol=1e-6)
        fires = top[layer].values > 1e-5
        assert fires.any() and torch.equal(found.images.T[fires], top[layer].images[fires])
        y, x = top[layer].positions.unbind(2)
        width = {"conv1": 6, "conv2": 4}[layer]
        assert torch.equal(found.places.T[fires], (y * width + x)[fires])
    assert not any(module._forward_hooks for module in net.modules())


def memory(tmp_path, *, few: int, many: int, kinds: list[str]) -> dict[str, dict[str, float]]:
    opened("memory").benchmark(few, many, kinds, str(tmp_path / "out.json"))
    return json.loads((tmp_path / "out.json").read_text())["kinds"]


def test_ten_times_as_many_images_take_no_more_memory_than_their_names(tmp_path, capsys) -> None:
    found = memory(tmp_path, few=500, many=5_000, kinds=["folder"])["folder"]  # their inputs would be 53 MiB
    assert found["few"] > 100 and found["more"] == found["many"] - found["few"] < 12
    assert f"{found['many']:.1f}" in capsys.readouterr().out


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["dataset", "iterable", "folder"])
def test_fifty_thousand_images_take_at_most_64_mib_more_than_a_thousand(kind, tmp_path) -> None:
    assert memory(tmp_path, few=1_000, many=50_000, kinds=[kind])[kind]["more"] <= 64


def test_the_benchmark_from_files_compares_the_scan_with_its_halves(tmp_path, capsys, one_thread, monkeypatch) -> None:
    from_files = opened("from_files")
    net = nn.Sequential(nn.Conv2d(3, 2, 3, 2), nn.ReLU()).eval()
    net.preprocess = Preprocess(32, 32)
    monkeypatch.setattr(from_files, "load_model", lambda model, weights: net)
    from_files.benchmark(images=20, ready=8, workers=1, batch_size=8, repetitions=2, out=str(tmp_path / "out.json"))
    result = json.loads((tmp_path / "out.json").read_text())
    assert len(result["turns"]) == 2 and all(min(turn.values()) > 0 for turn in result["turns"])
    assert result["ratios"] == [one["files"] / min(one["decoding"], one["network"]) for one in result["turns"]]
    assert 10_000 < result["bytes"] / result["images"] < 200_000
    assert f"ratio to the slower of the two {result['ratio']:.3f}" in capsys.readouterr().out


def test_the_benchmark_from_end_to_end_draws_the_same_by_both_routes(tmp_path, capsys, one_thread) -> None:
    end_to_end = opened("end_to_end")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum's, of the hooks that it sets
        end_to_end.benchmark(images=6, layers=["conv1", "conv2"], few=1, repetitions=1, clock="cpu",
                             out=str(tmp_path / "out.json"))
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["units"] == {"conv1": 96, "conv2": 256} and result["sampled"] == {"conv1": 1, "conv2": 1}
    assert result["difference"] < 1e-5  # else the two do not do the same work
    (turn,) = result["turns"]
    assert turn["theirs"]["conv2"] == 256 * turn["sample"]["conv2"] and turn["theirs"]["scan"] == turn["sample"]["scan"]
    assert result["ratio"] == sum(turn["theirs"].values()) / sum(turn["ours"].values())
    assert "times as fast" in capsys.readouterr().out


def test_the_benchmark_of_parts_puts_all_of_them_together(tmp_path, capsys, one_thread) -> None:
    parts = opened("parts")
    parts.benchmark(parts=3, images=50, classes=4, out=str(tmp_path / "out.json"), small=True)
    result = json.loads((tmp_path / "out.json").read_text())
    assert [len(result["times"][name]) for name in ("write", "read", "merge")] == [3, 3, 2]
    assert result["together"] == sum(result["times"]["read"]) + sum(result["times"]["merge"])
    assert result["megabytes"] > 0 < result["peak_gibibytes"] and "3 parts of" in capsys.readouterr().out
