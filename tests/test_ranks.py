"""A scan by several processes: the same bits as one gives, each image once, and what happens when one of them dies."""

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest
import sharing
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_scan import small_net
from torch import Tensor

from deconvnet import cli, load_model, open_images, resume
from deconvnet.describe import fingerprint
from deconvnet.errors import AnotherEnded, DeconvnetError
from deconvnet.processes import Here, processes
from deconvnet.rows import EvenRows
from deconvnet.scan import go_on, scan
from deconvnet.scanned import LayerScan, Scan, encode
from deconvnet.topk import Found

pytestmark = pytest.mark.usefixtures("one_thread")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
WORLDS = (1, 2, 3, 4)
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forks")


def told_by(*words: object) -> dict:
    done = subprocess.run([sys.executable, sharing.__file__, *map(str, words)], env=ENVIRONMENT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict:
    return told_by(tmp_path_factory.mktemp("ranks"))


# ---- the same bits ----

def seen(layer: LayerScan, maxima: Tensor, numbers: list[int], labels: Tensor) -> None:
    """A layer takes in images of which only the maxima are known."""
    found = Found(maxima[numbers], *(torch.zeros(0, dtype=t) for t in (torch.int64, torch.float32, torch.int64)),
                  torch.zeros(0, 2, dtype=torch.int64))
    layer.keep(found, torch.tensor(numbers), labels[numbers])


@settings(max_examples=60, deadline=None)
@example(1, 1, 2, torch.float64)  # a part without images, of another precision than the rest
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 5), st.sampled_from([torch.float32, torch.float64]))
def test_sums_are_the_same_bits_in_any_order_and_split(seed: int, n: int, parts: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = 10 ** (torch.rand(n, 4, generator=generator) * 14 - 8)  # a float64 cannot hold all digits of such sums
    maxima = (torch.randn(n, 4, generator=generator, dtype=torch.float64) * sizes).to(dtype)
    maxima[::3, 1], maxima[::4, 2] = -0.0, 0.0
    rng = random.Random(seed)
    labels = torch.tensor([rng.randrange(-1, 3) for _ in range(n)])
    one = LayerScan.blank(4, 3)
    seen(one, maxima, list(range(n)), labels)
    order, layers = rng.sample(range(n), n), []
    for part in range(parts):
        numbers, layer = order[part::parts], LayerScan.blank(4, 3)
        while numbers:
            count = rng.randint(1, 7)
            seen(layer, maxima, numbers[:count], labels)
            numbers = numbers[count:]
        layers.append(layer)
    merged = reduce(LayerScan.merge, rng.sample(layers, parts))
    assert encode(Scan({"a": merged}, count=n)) == encode(Scan({"a": one}, count=n))
    assert not one.sample.maxima.signbit().any()  # −0 is 0: which of the two a kernel gives is by chance
    exact = torch.zeros(3, 4, dtype=torch.float64).index_add_(0, labels[labels >= 0],
                                                              maxima[labels >= 0].double().clamp(min=0))
    torch.testing.assert_close(one.class_sums[:3], exact[:len(one.class_sums)], rtol=1e-12, atol=n * 2.0 ** -25)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 70), st.integers(1, 20), st.sampled_from([torch.float32, torch.float64]),
       st.sampled_from([0, 1, 2, 5]))
def test_an_image_gives_the_same_bits_in_any_row(n: int, inputs: int, units: int, dtype: torch.dtype, side: int
                                                 ) -> None:
    shape = (inputs, side, side) if side else (inputs,)
    images, weight = torch.randn(n, *shape, dtype=dtype), torch.randn(units, *(inputs, 1, 1)[:len(shape)], dtype=dtype)
    function, bias = F.conv2d if side else F.linear, torch.ones(units, dtype=dtype)
    with EvenRows():
        answers = function(images, weight, bias)
        for by in (1, 3):
            assert torch.equal(function(images.roll(by, 0), weight, bias), answers.roll(by, 0))
    torch.testing.assert_close(answers, function(images, weight, bias), rtol=1e-4, atol=1e-5)
    assert answers.is_contiguous()


@pytest.mark.parametrize("world", WORLDS)
def test_every_number_of_processes_gives_the_file_of_one(told: dict, world: int) -> None:
    for name, alone, count in ((f"whole {world}", "alone", sharing.IMAGES - 3), (f"few {world}", "alone few", 3)):
        got = told[name]
        assert got["codes"] == [0] * world, got
        assert got["said"] == [str(count), *["null"] * (world - 1)]  # the first alone has the whole
        assert got["sha256"] == told[alone] and len(got["names"]) == 1 and got["parts"] == []
    assert told[f"read {world}"] == list(range(sharing.IMAGES))  # each image once


def test_zfnet_gives_each_image_the_same_bits_in_any_part(tmp_path) -> None:
    net = load_model("zfnet", weights="demo")
    photographs = open_images("builtin:photographs-apart", net.preprocess)
    images = torch.stack([photographs[n][0] for n in range(0, 70, 10)])  # (7, 3, 224, 224)
    one = scan(net, images, batch_size=4)
    parts = reduce(Scan.merge, [scan(net, images, batch_size=4, shard=(rank, 3)) for rank in range(3)])
    assert encode(parts) == encode(one) and len(one) == 8


# ---- what may happen ----

def judge(one: dict, alone: str) -> None:
    """A scan in which a process was killed: nothing half written, and the same command ends with the same bits."""
    codes, rank, case = one["first"]["codes"], one["rank"], str(one)
    assert codes[rank] == -9 and {0, 1}.issuperset(codes[:rank] + codes[rank + 1:]), case
    assert all("another of the processes has ended" in said
               for code, said in zip(codes, one["first"]["said"], strict=True) if code == 1), case
    assert one["between"]["sha256"] in (None, alone), case
    assert one["between"]["sha256"] or rank == 0 or codes[0] == 1, case  # without all parts there is no result
    assert one["first"]["seconds"] < 40, case  # by themselves, without torchrun
    assert one["again"]["codes"] == [0] * one["world"] and one["after"]["sha256"] == alone, case
    assert len(one["after"]["names"]) == 1 and one["after"]["parts"] == [], case  # nothing is left beside the result
    for other in range(one["world"]):
        if one["whole"][other] and not one["between"]["sha256"]:
            assert one["reread"][other] == [], case  # a part that was whole is not gone through again


@forks
def test_a_process_that_dies_costs_its_own_part_alone(told: dict) -> None:
    assert {(one["world"], one["rank"]) for one in told["kills"]} == {(w, r) for w in WORLDS for r in range(w)}
    assert len(told["kills"]) >= 12
    for one in told["kills"]:
        judge(one, told["alone"])
    assert any(0 < len(one["reread"][one["rank"]]) < len(range(one["rank"], sharing.IMAGES, one["world"]))
               for one in told["kills"])  # and of that only what came after its last state


@forks
@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_a_process_may_die_at_any_moment(tmp_path) -> None:
    told = told_by(tmp_path, "extended")
    assert len(told["kills"]) > 400
    for one in told["kills"]:
        judge(one, told["alone"])


@forks
def test_another_number_of_processes_begins_anew_and_says_so(told: dict) -> None:
    killed, notes, through, left, none = told["number"]
    assert killed["codes"][1] == -9 and through["codes"] == [0, 0]
    assert len(notes) == 1 and "was begun by 3 processes" in notes[0] and "2 processes go through all" in notes[0]
    assert left["sha256"] == told["alone"] and left["parts"] == [] and len(left["names"]) == 1
    assert none == []


@forks
def test_parts_of_another_scan_are_refused(told: dict) -> None:
    killed, refused, _, left = told["changed"]
    assert killed["codes"] == [-9, 1] and refused["codes"][1] == 1
    assert "is the state of another scan:\n  model: small there, b here\nDelete" in refused["said"][1]
    assert refused["said"][1].endswith("changed.parts to begin anew")
    assert left["sha256"] is None or left["sha256"] == told["alone"]
    for words in ("disagree", "other networks"):
        assert told[words]["codes"] == [1, 1] and all("do not scan the same" in s for s in told[words]["said"])


@forks
def test_parts_of_another_network_are_refused_whatever_the_caller_says_of_it(told: dict) -> None:
    killed, refused, left = told["strange"]
    assert killed["codes"] == [-9, 1] and refused["codes"] == [1, 1] and left["sha256"] is None
    there, here = small_net(), sharing.double(small_net())
    line = f"another scan:\n  weights: {fingerprint(there)} there, {fingerprint(here)} here\nDelete"
    assert line in refused["said"][1]


@forks
def test_a_damaged_part_is_gone_through_again(told: dict) -> None:
    again, left = told["damaged"]
    assert again["codes"] == [0, 0] and left["sha256"] == told["alone"]


@forks
def test_what_one_process_refuses_several_refuse(told: dict) -> None:
    assert told["unreadable"]["codes"] == [1, 0, 0] and "None of the 8 images" in told["unreadable"]["said"][0]
    assert told["mended"]["codes"] == [0, 0, 0] and told["mended"]["said"][0] == "8" and not told["mended"]["parts"]
    assert told["strict"]["codes"] == [1, 1] and "bad2.jpg: an empty file" in told["strict"]["said"][0]
    assert told["unreadable"]["sha256"] is None and told["strict"]["sha256"] is None


def test_processes_that_do_not_see_the_same_folder(tmp_path) -> None:
    parts = sharing.Parts(tmp_path / "out", 2)
    with pytest.raises(DeconvnetError, match="one folder that they share"):
        parts.open(Here(rank=1), {})
    (tmp_path / "out.parts").mkdir()
    with pytest.raises(DeconvnetError, match=r"0-of-2\.safetensors is not there"):
        parts.together(Scan({}), {})


def test_a_part_is_put_to_the_others_only_when_it_is_whole_and_theirs(tmp_path) -> None:
    """Whatever became of it after its process was through."""
    parts, facts = sharing.Parts(tmp_path / "out", 2), {"weights": "a", "shard": [0, 2]}
    parts.folder.mkdir()
    data, blank = sharing.pictures(8, ()), Scan({}, shards=[(0, 2)])
    for rank in range(2):
        part = scan(small_net(), data, shard=(rank, 2))
        parts.store(rank, {**facts, "shard": [rank, 2]}).finish(part)
    both = parts.together(blank, facts)
    assert both.count == 8 and both.shards == [(0, 1)]
    assert encode(both) == encode(replace(scan(small_net(), data), files=[], labels=[], classes=[]))
    with pytest.raises(DeconvnetError, match=r"0-of-2.*another scan:\n  weights: a there, b here"):
        parts.together(blank, {**facts, "weights": "b"})
    assert go_on(small_net(), None, blank, parts.store(0, facts), None, torch.device("cpu"), batch_size=4, workers=0,
                 strict=True, progress=False).count == 4  # and no image is looked at any more
    parts.store(1, {**facts, "shard": [1, 2]})._save(part)  # a state on the way
    with pytest.raises(DeconvnetError, match=r"1-of-2\.safetensors is not there, or not whole"):
        parts.together(blank, facts)


def test_a_process_that_ends_before_the_others_have_met_it(monkeypatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("Gloo connectFullMesh failed\nwith [pair.cc] Connection closed by peer")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", refused)
    with pytest.raises(AnotherEnded, match=r"see what it said\. Or .*failed with .pair\.cc. Connection closed"), \
            processes("cpu"):
        pass


def test_processes_on_devices_of_different_kinds_are_refused(tmp_path) -> None:
    words = []

    class Asked(Here):
        def wait(self) -> None:
            pass

        def agree(self, word: str) -> bool:
            words.append(word)
            return False

    (tmp_path / "out.parts").mkdir()
    for device in ("cpu", "cuda", "cuda:1"):  # as where one of two machines has no GPU
        with pytest.raises(DeconvnetError, match=r"do not scan the same: .* kinds of device differ"):
            sharing.share(tmp_path / "out")(Asked(1, 2, torch.device(device)))
    assert words[0] != words[1] == words[2]


# ---- torchrun ----

MODEL = """
import os, signal, torch
from torch import nn
from deconvnet.images import Preprocess

class Net(nn.Sequential):
    def forward(self, x):
        self.count = getattr(self, "count", 0) + 1
        if os.environ.get("RANK") == os.environ.get("VICTIM", "nobody") and self.count == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

def build():
    torch.manual_seed(0)
    net = Net(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    net.preprocess = Preprocess(size=24, resize=24, mean=(0.5,) * 3, std=(0.5,) * 3)
    return net.eval()
"""


def test_torchrun(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("net.py").write_text(MODEL)
    for number in range(23):
        Path(f"images/{'ab'[number % 2]}").mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 30), 10.0 + number).save(f"images/{'ab'[number % 2]}/{number}.png")
    Path("images/a/bad.png").write_text("no picture")
    words = ["scan", "--model", "net.py:build", "--images", "images", "--batch-size", "2", "--out"]
    assert cli.main([*words, "one.safetensors"]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
                "deconvnet", *words, "two.safetensors"]
    killed = subprocess.run(torchrun, env={**os.environ, **ENVIRONMENT, "VICTIM": "1"}, capture_output=True, text=True)
    assert killed.returncode != 0 and "Signal 9" in killed.stderr and not Path("two.safetensors").exists()
    others, cause = killed.stderr.split("Failures:")[1].split("Root Cause")  # the last that is printed
    assert re.search("rank +: 1 ", cause) and re.search("traceback : .*the same command", others, re.IGNORECASE)
    done = subprocess.run(torchrun, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path("two.safetensors").read_bytes() == Path("one.safetensors").read_bytes()
    assert done.stdout.count("Now: deconvnet gallery") == 1 and "bad.png" in done.stdout  # the first alone speaks
    assert "bad.png" in capsys.readouterr().out and not Path("two.safetensors.parts").exists()


def test_a_state_that_takes_long_is_saved_less_often(tmp_path, monkeypatch) -> None:
    now, saved = [0.0], []
    monkeypatch.setattr(resume.time, "monotonic", lambda: now[0])

    def slow(*_: object, **__: object) -> None:
        saved.append(now[0])
        now[0] += 3

    monkeypatch.setattr(resume, "write_whole", slow)
    store = resume.Checkpoint(tmp_path / "state", every=20)
    for now[0] in range(0, 300, 5):
        store.save_if_due(Scan({}))
    assert saved == [20, 85, 150, 215, 280]  # after the first, three seconds of every sixty
