"""What a run tells: lines of JSON, curves that can be looked at, TensorBoard's files without doubles."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recipes import tiny

from deconvnet import training
from deconvnet.errors import UsageError
from deconvnet.training import Stage, journal
from deconvnet.training.journal import Journal, curves


def entries(count: int = 6, measured: bool = True) -> list[dict]:
    return [{"epoch": epoch, "size": 128 if epoch < 4 else 224, "rate": 0.1 / epoch, "loss": 4 / epoch,
             "smallest_norm": 1 / epoch, "median_norm": 1.0, "largest_norm": epoch * 2.0,
             **({"top1": epoch / 10, "top5": epoch / 8} if measured and epoch % 2 == 0 else {})}
            for epoch in range(1, count + 1)]


def dark(png: bytes) -> np.ndarray:
    """Where something is drawn, (H, W)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("L")) < 250


def test_the_log_has_a_line_for_each_epoch(tmp_path: Path) -> None:
    Journal(tmp_path).write(entries())
    Journal(tmp_path).write(entries())  # told again is not told twice
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == entries()


@pytest.mark.parametrize("told", [entries(), entries(1), entries(measured=False)], ids=["six", "one", "no accuracy"])
def test_the_curves_are_three_panels_that_hold_something(told: list[dict]) -> None:
    drawn = dark(curves(told))
    assert drawn.shape == (380, 1300) and 0.005 < drawn.mean() < 0.3
    sides = np.flatnonzero(drawn[20:300].all(0))                                 # upright lines over the whole height
    panels = np.split(sides, np.flatnonzero(np.diff(sides) > 20) + 1)
    assert len(panels) >= 6
    for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert not edge.any()  # nothing is cropped


def test_each_panel_shows_its_curve() -> None:
    def coloured(told: list[dict]) -> list[int]:
        pixels = np.asarray(Image.open(io.BytesIO(curves(told))).convert("RGB")).astype(int)
        return [int((np.ptp(part, axis=2) > 60).sum()) for part in np.array_split(pixels, 3, axis=1)]

    left, middle, right = coloured(entries())
    assert min(left, middle, right) > 300
    without = coloured(entries(measured=False))
    assert without[1] < middle - 200  # of that one only the legend
    assert abs(without[0] - left) + abs(without[2] - right) < 200
    assert coloured(entries(1))[0] > 5  # one epoch alone is seen, too


def test_the_same_entries_give_the_same_bytes() -> None:
    assert curves(entries()) == curves(entries()) != curves(entries(5))


def test_curves_are_drawn_when_there_is_something_new(tmp_path: Path) -> None:
    def draws(told: list[dict]) -> bool:
        (tmp_path / "curves.png").write_bytes(b"")
        Journal(tmp_path).write(told)
        return bool((tmp_path / "curves.png").read_bytes())

    assert draws(entries(1)) and draws(entries(2)) and draws(entries(4)) and not draws(entries(5))
    assert draws(entries(5, measured=False))  # where nothing is held out, the loss is all the news that there is


def test_tensorboard_that_is_not_installed_is_named_with_the_cure(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'deconvnet\[tensorboard\]'"):
        Journal(tmp_path, tensorboard=True)
    Journal(tmp_path)
    with pytest.raises(UsageError, match="needs the package tensorboard"):  # before the images are looked for
        training.train(tiny(tmp_path / "none"), tmp_path, tensorboard=True)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_tensorboard_reads_back_what_was_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    told = entries()
    one = Journal(tmp_path, tensorboard=True)
    for count in range(1, 5):
        one.write(told[:count])
    # killed after epoch 4: the next one goes on from there, or from the checkpoint before, and tells the last again
    two = Journal(tmp_path, tensorboard=True, first=3)
    for count in range(3, 7):
        two.write(told[:count])
    found = scalars(tmp_path)
    assert set(found) == set(told[1]) - {"epoch"}
    for name, values in found.items():
        expected = [(entry["epoch"], entry[name]) for entry in told if name in entry]
        assert [step for step, _ in values] == [step for step, _ in expected], name
        assert [value for _, value in values] == pytest.approx([value for _, value in expected], rel=1e-6)


def test_a_run_that_goes_on_tells_nothing_twice(tree: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("tensorboard")
    settings = tiny(tree, stages=(Stage(epochs=2, size=128), Stage(epochs=1)), measure=1)
    real = journal.Journal.write

    def pulled(self, told, *more) -> None:
        if len(told) == 2:
            raise InterruptedError
        real(self, told, *more)

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "write", pulled)
        with pytest.raises(InterruptedError):  # the second epoch was saved, and not told
            training.train(settings, tmp_path, progress=False, tensorboard=True)
    for _ in range(2):  # and a run that is over may be asked for again
        training.train(settings, tmp_path, progress=False, tensorboard=True)
        log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        assert [entry["epoch"] for entry in log] == [1, 2, 3]
        found = scalars(tmp_path)
        for name in ("loss", "rate", "top1", "images_per_second"):
            assert [step for step, _ in found[name]] == [1, 2, 3], name
            assert [value for _, value in found[name]] == pytest.approx([entry[name] for entry in log], rel=1e-6)
