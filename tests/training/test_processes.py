"""Several processes: they give what one alone gives, go on with what any number saved, and end together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ranks
import torch
from mortal import ALONE as ENVIRONMENT
from torch import nn

from deconvnet.processes import ALONE
from deconvnet.sealed import unseal
from deconvnet.training.build import PartDropout
from deconvnet.training.views import jitter

PROGRAM = Path(__file__).parent / "ranks.py"

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def said(tree: Path, folder: Path) -> dict:
    """What the processes said that ranks.py forked."""
    done = subprocess.run([sys.executable, PROGRAM, tree, folder], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def torchrun(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", PROGRAM]
    return subprocess.run([*command, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True)


def newest(out: Path) -> tuple[dict[str, torch.Tensor], dict]:
    return max((unseal(file.read_bytes()) for file in out.glob("checkpoint-*")), key=lambda state: state[1]["step"])


def alike(one: Path, other: Path) -> None:
    """Weights and momentum are the same to rounding, and what was measured is the same."""
    (tensors, about), (others, about_other) = newest(one), newest(other)
    assert tensors.keys() == others.keys() and about["step"] == about_other["step"] == 6
    for name, value in tensors.items():
        if name not in ("drawn", "losses"):
            error = float((value - others[name]).norm() / value.norm().clamp_min(1e-6))
            assert error < 1e-5, f"{name}: {error}"
    for entry, entry_other in zip(about["log"], about_other["log"], strict=True):
        assert entry["loss"] == pytest.approx(entry_other["loss"], rel=1e-6)
        assert [entry[key] for key in ("epoch", "top1", "top5")] == [
            entry_other[key] for key in ("epoch", "top1", "top5")]


# ---- shares ----

@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_parts_drop_what_the_whole_drops(world: int) -> None:
    x = torch.rand(12, 5) + 1

    def drop(layer: nn.Module, part: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return layer(layer(part))  # the second time the numbers that follow

    whole, parts = drop(nn.Dropout(0.4), x), torch.empty_like(x)
    for rank in range(world):
        parts[rank::world] = drop(PartDropout(0.4, rank, world), x[rank::world])
    assert torch.equal(whole, parts) and 0 < int((whole == 0).sum()) < 60
    assert torch.equal(drop(PartDropout(0.4, 1, world).eval(), x), x)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_parts_are_coloured_as_the_whole_is(world: int) -> None:
    images = torch.rand(12, 3, 4, 4)

    def coloured(part: torch.Tensor, rank: int, world: int) -> torch.Tensor:
        torch.manual_seed(3)
        return jitter(jitter(part, 0.2, rank, world), 0.3, rank, world)

    whole, parts = coloured(images, 0, 1), torch.empty_like(images)
    for rank in range(world):
        parts[rank::world] = coloured(images[rank::world], rank, world)
    assert torch.equal(whole, parts) and not torch.allclose(whole, images, atol=0.01)


@forks
def test_totals_and_largest_values(said: dict) -> None:
    assert said["sums"]["codes"] == [0, 0, 0], said["sums"]
    assert [json.loads(text) for text in said["sums"]["said"]] == [[[6, 30], [2, 0], [3 * 2**40 + 3]]] * 3
    assert ALONE.total(torch.tensor([3])).tolist() == [3] and ALONE.largest(2, -1) == [2, -1] and ALONE.first


# ---- the same run ----

@forks
@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_give_what_one_gives(said: dict, folder: Path, world: int) -> None:
    assert said["whole 1"]["codes"] == [0] and said[f"whole {world}"]["codes"] == [0] * world, said[f"whole {world}"]
    alike(folder / "whole1", folder / f"whole{world}")


@forks
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 2)])
def test_any_number_goes_on_with_what_any_number_saved(said: dict, folder: Path, before: int, after: int) -> None:
    stopped, finished = said[f"stopped {before}"], said[f"from {before} to {after}"]
    assert stopped["codes"] == [143] * before, stopped
    assert all("after epoch 1 and 1 of 2 steps" in text for text in stopped["said"])  # all after the same one
    assert finished["codes"] == [0] * after, finished
    alike(folder / "whole1", folder / f"from{before}to{after}")


# ---- what ends it ----

@forks
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_others_and_the_run_goes_on(said: dict, folder: Path, rank: int) -> None:
    killed = said[f"killed {rank}"]
    assert killed["codes"][rank] == -9 and killed["codes"][1 - rank] not in (0, -9), killed
    assert killed["between"] < 20  # seconds; by itself, without torchrun
    assert said[f"after {rank}"]["codes"] == [0, 0], said[f"after {rank}"]
    alike(folder / "whole1", folder / f"killed{rank}")
    assert said["outcomes"][f"killed{rank}"]["losses"] == pytest.approx(said["outcomes"]["whole2"]["losses"], rel=1e-9)
    assert not said["outcomes"][f"killed{rank}"]["parts"]


@forks
@pytest.mark.parametrize(("case", "message"), [
    ("batch norm", "UsageError: batch_norm over several processes needs GPUs"),
    ("odd batch", "UsageError: batch: 5 images cannot be shared evenly by 2 processes"),
    ("few images", "images, fewer than a batch, cannot be shared evenly by 2 processes"),
    ("two folders", "DeconvnetError: the processes find different checkpoints"),
])
def test_what_cannot_be_shared_is_refused_by_all(said: dict, case: str, message: str) -> None:
    assert said[case]["codes"] == [1, 1] and all(message in text for text in said[case]["said"]), said[case]


@forks
def test_torchrun(tree: Path, said: dict, folder: Path, tmp_path: Path) -> None:
    often = ranks.settings(tree, minutes=1e-9).model_dump_json()
    killed = torchrun(often, tmp_path, 3)
    assert killed.returncode != 0 and "Signal 9" in killed.stderr
    assert newest(tmp_path)[1]["step"] == 3
    through = torchrun(often, tmp_path)
    assert through.returncode == 0, through.stderr
    alike(folder / "whole1", tmp_path)
