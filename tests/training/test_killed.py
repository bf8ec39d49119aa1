"""Runs that are killed or asked to stop, as real processes: what goes on ends with the same bits."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import lives as program
import pytest
from mortal import ALONE

from deconvnet.sealed import unseal
from deconvnet.training import Stage

KILLS = int(os.environ.get("DECONVNET_KILLS", "40"))
"""Kills at random moments: a third of a second each; 100 where there is time."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forks")


# ---- killed ----

@pytest.fixture(scope="module")
def lives(tree: Path, tmp_path_factory) -> dict:
    command = [sys.executable, program.__file__, tree, tmp_path_factory.mktemp("lives"), str(KILLS)]
    done = subprocess.run(command, env=ALONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_at_random_moments_until_it_is_through(lives: dict) -> None:
    found = lives["random"]
    assert found["kills"] >= KILLS and found["outcomes"] and len(found["reached"]) > 3  # steps that were gone on from
    assert all(outcome == lives["whole"] for outcome in found["outcomes"])


def test_killed_at_everything_that_it_writes(lives: dict) -> None:
    # in each of two epochs a checkpoint, the log and the curves, in one a snapshot and its card, and the weights
    assert lives["writes"]["kills"] >= 10 * 3
    assert lives["writes"]["outcomes"] == [lives["whole"]]


def test_a_run_that_went_through_leaves_nothing_behind(lives: dict) -> None:
    assert lives["whole"]["parts"] == [] and len(lives["whole"]["losses"]) == 2


# ---- asked to stop ----

COMMAND = [sys.executable, "-c", "from deconvnet.cli import main; import sys; sys.exit(main())", "train"]


def begin(tree: Path, folder: Path, workers: int) -> subprocess.Popen:
    """The command line at work, in a process group of its own, once its second epoch has begun."""
    stages = (Stage(epochs=9999, size=128), Stage(epochs=1))
    recipe = program.settings(tree, stages=stages, workers=workers, snapshots=(), measure=9999)
    (folder / "long.yaml").write_text(recipe.model_dump_json())  # which is YAML too
    command = [*COMMAND, "--config", "long.yaml", "--out", "out"]
    run = subprocess.Popen(command, cwd=folder, env=ALONE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                           start_new_session=True)
    while not (folder / "out" / "checkpoint-a.safetensors").exists():
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
    return run


def said(run: subprocess.Popen) -> list[str]:
    """What the command line says after its bars of progress; it has a minute to end, however busy the machine."""
    errors = run.communicate(timeout=60)[1]
    assert "Traceback" not in errors, errors
    return [line for line in re.split(r"[\r\n]", errors) if line.startswith("deconvnet")]


def is_gone(group: int) -> bool:
    """Whether no process of a group is left, ten seconds from now at the latest."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop(tree: Path, tmp_path: Path, number: int, code: int, workers: int) -> None:
    run = begin(tree, tmp_path, workers)
    os.killpg(run.pid, number)  # as a terminal does it, and torchrun: workers get it too
    [line] = said(run)
    assert run.returncode == code
    done, at = map(int, re.search(r"after epoch (\d+) and (\d+) of \d steps; the same command goes on", line).groups())
    states = [unseal(file.read_bytes())[1] for file in (tmp_path / "out").glob("checkpoint-*")]
    assert max((state["done"], state["at"]) for state in states) == (done, at)
    assert is_gone(run.pid) and not list(tmp_path.rglob("*.part"))


def test_asked_to_stop_twice(tree: Path, tmp_path: Path) -> None:
    run = begin(tree, tmp_path, 2)
    os.kill(run.pid, signal.SIGSTOP)  # both signals are there before it can obey the first
    os.killpg(run.pid, signal.SIGTERM)
    os.killpg(run.pid, signal.SIGINT)
    os.kill(run.pid, signal.SIGCONT)
    [line] = said(run)
    assert line == ("deconvnet: stopped at once; the same command goes on from the last checkpoint: "
                    "deconvnet train --config long.yaml --out out")
    assert run.returncode in (130, 143) and is_gone(run.pid)
