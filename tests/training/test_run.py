"""A run: what is cut off goes on with the same bits, and nothing else goes on."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from signal import SIG_IGN, SIGINT, SIGTERM, default_int_handler, getsignal, raise_signal, signal

import pytest
import torch
from deconvnet.models.zfnet import ZFNet
from PIL import Image
from recipes import recipe
from safetensors.torch import load_file

from deconvnet import training
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.images import Preprocess
from deconvnet.training import Stage, data
from deconvnet.training.run import Run
from deconvnet.training.stopping import requests_to_stop


class Pull(Exception):
    """The plug is pulled."""


def at_step(monkeypatch, number: int, happen: Callable[[], None]) -> None:
    """Before the given step (counted over the whole run) something happens."""
    count, real = iter(range(1000)), Run.step

    def step(self, *args):
        if next(count) == number:
            happen()
        return real(self, *args)

    monkeypatch.setattr(Run, "step", step)


def pull() -> None:
    raise Pull


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_a_run_writes_what_it_says(finished: Path, tree: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "checkpoint-a.safetensors", "checkpoint-b.safetensors", "log.jsonl", "curves.png", "filters.png",
        "weights.safetensors", "weights.json"}
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["size"]) for line in log] == [(1, 128), (2, 224)] and "top1" in log[-1]
    tensors, card = load_file(finished / "weights.safetensors"), json.loads((finished / "weights.json").read_text())
    net = ZFNet(**card["arguments"])
    net.load_state_dict(tensors)  # exactly these names and shapes
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert card["classes"] == ["across", "down", "plain"] and card["unreadable"] == 1
    assert Preprocess(**card["preprocess"]).size == 224
    assert str(tree) not in (finished / "weights.json").read_text() + (finished / "log.jsonl").read_text()
    assert all(str(tree).encode() not in file.read_bytes() for file in finished.glob("checkpoint-*"))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(tree, tmp_path, finished, monkeypatch, step) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, step, pull)
        with pytest.raises(Pull):
            training.train(recipe(tree), tmp_path, progress=False)
    assert any(tmp_path.glob("checkpoint-*")) == (step >= 2)
    training.train(recipe(tree), tmp_path, progress=False)
    assert (tmp_path / "weights.safetensors").read_bytes() == (finished / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(("step", "signal", "code"), [(0, SIGINT, 130), (2, SIGINT, 130), (1, SIGTERM, 143)])
def test_a_run_that_is_asked_to_stop_saves_the_step_and_goes_on_from_it(
        tree, tmp_path, finished, monkeypatch, step, signal, code) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, step, send(signal))
        with pytest.raises(KeyboardInterrupt) as stop:
            training.train(recipe(tree), tmp_path, progress=False)
    done, at = divmod(step + 1, 2)
    assert f"after epoch {done} and {at} of 2 steps" in str(stop.value) and "same command" in str(stop.value)
    assert stop.value.code == code
    steps = []
    with monkeypatch.context() as patch:
        real = Run.step
        patch.setattr(Run, "step", lambda self, *args: steps.append(1) or real(self, *args))
        training.train(recipe(tree), tmp_path, progress=False)
    assert len(steps) == 4 - (step + 1)  # not one is done again
    assert (tmp_path / "weights.safetensors").read_bytes() == (finished / "weights.safetensors").read_bytes()
    losses = [[json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
              for folder in (finished, tmp_path)]
    assert losses[0] == losses[1]


def test_a_second_request_is_obeyed_at_once(tree: Path, tmp_path: Path, monkeypatch) -> None:
    at_step(monkeypatch, 0, lambda: (send(SIGINT)(), send(SIGINT)()))
    with pytest.raises(KeyboardInterrupt, match="at once"):
        training.train(recipe(tree), tmp_path, progress=False)
    assert getsignal(SIGINT) is default_int_handler


def test_a_signal_that_was_ignored_is_no_request() -> None:
    before = signal(SIGINT, SIG_IGN)  # as a shell's & has it in a script
    try:
        with requests_to_stop() as request:
            request.heeded = True
            raise_signal(SIGINT)
        assert request.number == 0 and getsignal(SIGINT) is SIG_IGN
    finally:
        signal(SIGINT, before)


def test_checkpoints_are_written_between_steps_when_it_is_time(tree, tmp_path, finished, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 1, pull)
        with pytest.raises(Pull):
            training.train(recipe(tree, minutes=1e-9), tmp_path, progress=False)
    assert any(tmp_path.glob("checkpoint-*"))
    training.train(recipe(tree), tmp_path, progress=False)
    assert (tmp_path / "weights.safetensors").read_bytes() == (finished / "weights.safetensors").read_bytes()


def test_a_finished_run_is_not_trained_again(tree: Path, finished: Path, monkeypatch, capsys) -> None:
    at_step(monkeypatch, 0, pull)
    before = (finished / "weights.safetensors").read_bytes()
    training.train(recipe(tree), finished)
    assert (finished / "weights.safetensors").read_bytes() == before
    assert "all 2 epochs are over" in capsys.readouterr().out


def test_another_recipe_does_not_go_on(tree: Path, finished: Path, monkeypatch) -> None:
    monkeypatch.setattr(data.PictureSet, "read", pull)  # it is refused before a picture is read
    with pytest.raises(UsageError) as refusal:
        training.train(recipe(tree, rate=0.5, dropout=0.1), finished, progress=False)
    lines = str(refusal.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == ["dropout", "rate"]
    assert "rate: 0.01 before, 0.5 now" in lines[2]


def test_other_images_do_not_go_on(tree: Path, finished: Path, tmp_path: Path) -> None:
    for picture in sorted(tree.glob("*/[1-6].png")):
        (tmp_path / picture.parent.name).mkdir(exist_ok=True)
        (tmp_path / picture.parent.name / picture.name).write_bytes(picture.read_bytes())
    with pytest.raises(UsageError, match="images \\(by content\\)"):
        training.train(recipe(tmp_path), finished, progress=False)


def test_pictures_of_one_colour_have_no_edges_to_begin_with(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (150, 150), "red").save(tmp_path / folder / "x.png")
    with pytest.raises(UsageError, match="centroids: false"):
        training.train(recipe(tmp_path), tmp_path / "out", progress=False)


def test_a_loss_that_is_no_number_stops_the_run(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DeconvnetError, match="lower rate"):
        training.train(recipe(tree, rate=10, momentum=0.99, batch_norm=False, centroids=False, std=(1e-5,) * 3,
                              stages=(Stage(epochs=9, size=128), Stage(epochs=1))), tmp_path, progress=False)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    Image.new("RGB", (150, 150)).save(tmp_path / "x.png")
    with pytest.raises(UsageError, match="at least two classes"):
        training.train(recipe(tmp_path), tmp_path / "out", progress=False)


def test_a_folder_that_cannot_be_written_is_said_before_the_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeconvnetError, match="Cannot write"):
        training.train(recipe(tmp_path / "no images"), tmp_path / "file" / "out", progress=False)


def test_the_rate_follows_the_recipe(tree: Path) -> None:
    pictures = data.load(recipe(tree), progress=False)

    def rates(*stages: Stage, **changes) -> list[float]:
        run = Run(recipe(tree, stages=stages or (Stage(epochs=4),), rate=1.0, **changes), pictures)
        assert run.steps == 2
        return [run.rate(step * run.steps) for step in range(4)]

    assert rates(schedule="constant") == [1, 1, 1, 1]
    assert rates(schedule="constant", drops=(2, 3)) == pytest.approx([1, 1, 0.1, 0.01])
    assert rates(schedule="cosine") == pytest.approx([1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5])
    assert rates(Stage(epochs=2), Stage(epochs=2, rate=0.1), schedule="cosine") == pytest.approx([1, 0.5, 0.1, 0.05])
    assert rates(schedule="constant", warmup=1) == [0.5, 1, 1, 1]
