"""Checkpoints: what comes back is the newest state that is whole, whatever happens to the files or on the way there."""

import errno
import io
import os
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from deconvnet.cli import main
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.sealed import seal
from deconvnet.training import Recipe, Stage
from deconvnet.training.checkpoint import Checkpoints, State

IDENTITY = {**Recipe(images="x").identity(), "images (by content)": "0" * 64}
NAMES = ("checkpoint-a.safetensors", "checkpoint-b.safetensors")


def state(step: int) -> State:
    tensors = {"net.weight": torch.full((5, 3), float(step)), "drawn": torch.arange(step + 9, dtype=torch.uint8)}
    return tensors, {"step": step, "done": 1, "at": step, "log": [{"epoch": 1, "loss": step / 7}]}


def same(one: State | None, other: State) -> bool:
    return (one is not None and one[1] == other[1] and one[0].keys() == other[0].keys()
            and all(torch.equal(one[0][name], other[0][name]) for name in one[0]))


def read(folder: Path) -> State | None:
    """The latest state, where no warning is in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Checkpoints(folder, IDENTITY).latest()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the states 4 (in b) and 5 (in a)."""
    keeper = Checkpoints(tmp_path, IDENTITY)
    for step in (3, 4, 5):
        keeper.save(state(step))
    return tmp_path


# ---- two files take turns ----

def test_what_is_saved_comes_back_and_two_files_take_turns(tmp_path: Path) -> None:
    keeper, contents = Checkpoints(tmp_path, IDENTITY), {}
    assert keeper.latest() is None
    for step in range(1, 6):
        keeper.save(state(step))
        assert same(read(tmp_path), state(step))
        before, contents = contents, {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        changed = [name for name in contents if before.get(name) != contents[name]]
        assert changed == [NAMES[(step - 1) % 2]]
    assert set(contents) == set(NAMES)


def test_who_goes_on_overwrites_the_older_state(saved: Path) -> None:
    newest = (saved / NAMES[0]).read_bytes()
    keeper = Checkpoints(saved, IDENTITY)
    keeper.latest()
    keeper.save(state(6))
    assert (saved / NAMES[0]).read_bytes() == newest and same(read(saved), state(6))


def test_who_goes_on_from_the_older_state_overwrites_the_damaged_one(saved: Path) -> None:
    (saved / NAMES[0]).write_bytes(b"")
    keeper, older = Checkpoints(saved, IDENTITY), (saved / NAMES[1]).read_bytes()
    with pytest.warns(UserWarning, match="damaged"):
        keeper.latest()
    keeper.save(state(5))
    assert (saved / NAMES[1]).read_bytes() == older and same(read(saved), state(5))


# ---- damage ----

def damages(data: bytes, other: bytes) -> Iterator[bytes]:
    """What may become of a file: cut off, a bit flipped in every region, empty, garbage, something else."""
    rng = random.Random(0)
    header = 8 + int.from_bytes(data[:8], "little")
    for length in {0, 1, 7, 8, 9, 40, header - 1, header, header + 1, len(data) - 1, *rng.sample(range(len(data)), 30)}:
        yield data[:length]
    places = [*range(8), *rng.sample(range(8, 150), 40), *rng.sample(range(150, header), 50),
              *range(header - 3, header + 3), *rng.sample(range(header, len(data)), 50), len(data) - 1]
    for place in places:
        yield data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1:]
    yield from (data + b"\0", data + data, bytes(len(data)), rng.randbytes(len(data)), rng.randbytes(5), b"no tensors")
    yield data[:header] + other[header:]  # the header of one and the tensors of the other
    yield from (seal({"mean": torch.zeros(3)}, {"images": "x", "unreadable": {}}), seal({}, {}))  # whole, but no state


def test_damage_is_noticed_and_the_other_state_is_used(saved: Path) -> None:
    contents, count = [(saved / name).read_bytes() for name in NAMES], 0
    for hurt, whole, step in ((0, 1, 4), (1, 0, 5)):
        for damaged in damages(contents[hurt], contents[whole]):
            (saved / NAMES[hurt]).write_bytes(damaged)
            with pytest.warns(UserWarning) as warned:
                found = Checkpoints(saved, IDENTITY).latest()
            assert same(found, state(step)), count
            said = str(warned[0].message)
            assert len(warned) == 1 and f"{NAMES[hurt]} is damaged" in said, said
            assert f"goes on from {NAMES[whole]}, step {step}" in said, said
            count += 1
        (saved / NAMES[hurt]).write_bytes(contents[hurt])
    assert count >= 2 * 200
    assert same(read(saved), state(5))


@pytest.mark.parametrize(("gone", "step"), [(0, 4), (1, 5)])
def test_a_file_that_is_gone_is_no_damage(saved: Path, gone: int, step: int) -> None:
    (saved / NAMES[gone]).unlink()
    assert same(read(saved), state(step))


def test_exchanged_files_are_no_damage(saved: Path) -> None:
    a, b = (saved / name for name in NAMES)
    content = a.read_bytes()
    b.replace(a)
    b.write_bytes(content)
    assert same(read(saved), state(5))
    keeper = Checkpoints(saved, IDENTITY)
    keeper.latest()
    keeper.save(state(6))
    assert b.read_bytes() == content


def test_a_file_that_cannot_be_read_counts_as_damaged(saved: Path, monkeypatch) -> None:
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == NAMES[0]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.warns(UserWarning, match=rf"{NAMES[0]} is damaged \(.*Input/output error\).*{NAMES[1]}, step 4"):
        assert same(Checkpoints(saved, IDENTITY).latest(), state(4))


@pytest.mark.parametrize("second", ["damaged", "missing"])
def test_where_nothing_is_whole_the_remedy_is_said(saved: Path, second: str) -> None:
    a, b = (saved / name for name in NAMES)
    a.write_bytes(a.read_bytes()[:-1])
    b.write_bytes(b"") if second == "damaged" else b.unlink()
    with pytest.raises(DeconvnetError, match="Remove them to begin anew") as error:
        Checkpoints(saved, IDENTITY).latest()
    assert not isinstance(error.value, UsageError)
    assert f"{a.name}: its SHA-256 does not fit" in str(error.value) and str(saved) in str(error.value)
    assert (b.name in str(error.value)) == (second == "damaged")


# ---- another recipe ----

def another(value: object) -> object:
    """A value that is not the given one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"not {value}"


@pytest.mark.parametrize("key", sorted(IDENTITY))
def test_whatever_differs_is_named_and_nothing_else(saved: Path, key: str) -> None:
    now = {**IDENTITY, key: another(IDENTITY[key])}
    with pytest.raises(UsageError) as refusal:
        Checkpoints(saved, now).latest()
    first, *lines, last = str(refusal.value).splitlines()
    assert NAMES[0] in first and "remove the checkpoints" in last
    assert lines == [f"  {key}: {IDENTITY[key]} before, {now[key]} now"]


def test_a_key_that_came_or_went_is_named(saved: Path) -> None:
    for changed in ({**IDENTITY, "new": 1}, {key: value for key, value in IDENTITY.items() if key != "seed"}):
        with pytest.raises(UsageError, match=r"  (new: None before, 1 now|seed: 0 before, None now)\n"):
            Checkpoints(saved, changed).latest()


def test_every_key_that_changes_a_run_is_in_its_identity() -> None:
    settings = {"images": "y", "held_out": "z", "workers": 3, "memory": 1.0, "downloads": "w", "minutes": 3.0,
                "snapshots": (5,), "small_snapshots": True, "test": "ten", "measure": 7}
    assert Recipe(images="x").identity() == Recipe(**settings).identity()
    assert IDENTITY.keys() - {"images (by content)"} == Recipe.model_fields.keys() - settings.keys()
    stages = (Stage(epochs=1), Stage(epochs=69))
    assert Recipe(images="x", stages=stages).identity() != Recipe(images="x").identity()


# ---- a disk that refuses ----

class Dead(BaseException):
    """The process is killed: nothing that it would still do happens."""


class Disk:
    """What a save does to the disk, counted; at one operation something happens, before it or after it."""

    def __init__(self, monkeypatch, happen: Callable[[], None] | None = None, at: int = -1, after: bool = False,
                 half: bool = False) -> None:
        self.names: list[str] = []
        self.happen, self.at, self.after, self.half, self.dead = happen, at, after, half, False
        real_open = Path.open

        def opened(path: Path, mode: str = "r", *args, **options):
            if "w" not in mode:
                return real_open(path, mode, *args, **options)
            self.before("open")
            file = _Counted(path, self)
            try:
                self.behind()
            except BaseException:
                file.close()
                raise
            return file

        monkeypatch.setattr(Path, "open", opened)
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            monkeypatch.setattr(owner, name, self.counted(name, getattr(owner, name)))

    def counted(self, name: str, real: Callable) -> Callable:
        def operation(*args, **options):
            self.before(name)
            result = real(*args, **options)
            self.behind()
            return result
        return operation

    def before(self, name: str) -> None:
        if self.dead:
            raise Dead
        self.names.append(name)
        self.strike(not self.after)

    def behind(self) -> None:
        self.strike(self.after)

    def strike(self, now: bool) -> None:
        if now and self.happen is not None and len(self.names) - 1 == self.at:
            self.happen()


class _Counted(io.FileIO):
    """A file without a buffer, whose writes are counted, and may stop half-way."""

    def __init__(self, path: Path, disk: Disk) -> None:
        super().__init__(path, "wb")
        self.disk = disk

    def write(self, content) -> int:
        if self.disk.half and len(self.disk.names) == self.disk.at:
            super().write(content[:len(content) // 2])
        self.disk.before("write")
        written = super().write(content)
        self.disk.behind()
        return written


def operations(monkeypatch, folder: Path) -> list[str]:
    """What a save does, in order."""
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        Checkpoints(folder, IDENTITY).save(state(1))
    for path in folder.iterdir():
        path.unlink()
    return disk.names


def test_a_save_writes_flushes_and_then_renames(tmp_path: Path, monkeypatch) -> None:
    assert operations(monkeypatch, tmp_path) == ["open", "write", "fsync", "replace", "unlink", "fsync"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("operation", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("half", [False, True])
def test_a_disk_that_refuses_leaves_the_states_as_they_were(saved: Path, monkeypatch, operation, code, half) -> None:
    def refuse() -> None:
        raise OSError(code, os.strerror(code))

    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    keeper = Checkpoints(saved, IDENTITY)
    keeper.latest()
    with monkeypatch.context() as patch:
        Disk(patch, refuse, ["open", "write", "fsync", "replace"].index(operation), half=half)
        with pytest.raises(DeconvnetError, match=rf"{NAMES[1]} cannot be written: {os.strerror(code)}"):
            keeper.save(state(6))
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    keeper.save(state(7))  # once there is room again
    assert same(read(saved), state(7)) and (saved / NAMES[0]).read_bytes() == before[NAMES[0]]


# ---- a process that is killed ----

@pytest.mark.parametrize("states", [0, 1, 2, 3])
@pytest.mark.parametrize("half", [False, True])
def test_killed_at_any_point_of_a_save(tmp_path: Path, monkeypatch, states: int, half: bool) -> None:
    points = [(at, after) for at in range(len(operations(monkeypatch, tmp_path))) for after in (False, True)]
    for number, (at, after) in enumerate(points):
        folder = tmp_path / str(number)
        folder.mkdir()
        keeper = Checkpoints(folder, IDENTITY)
        for step in range(1, states + 1):
            keeper.save(state(step))
        with monkeypatch.context() as patch:
            disk = Disk(patch, lambda: die(disk), at, after, half)  # noqa: B023
            with pytest.raises(Dead):
                keeper.save(state(9))
        renamed = (at, after) >= (3, True)
        found = read(folder)
        assert same(found, state(9)) if renamed else (found is None if not states else same(found, state(states)))
        later = Checkpoints(folder, IDENTITY)
        later.latest()
        later.save(state(10))
        assert same(read(folder), state(10))
        assert len(list(folder.glob("checkpoint-*"))) <= 2


def die(disk: Disk) -> None:
    disk.dead = True
    raise Dead


def test_a_damaged_checkpoint_is_said_on_the_terminal_in_one_plain_line(tree, tmp_path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text("images: x\nhidden: [8, 8]\ntrain_per_class: 4\nbatch: 5\nsnapshots: []\n"
                      "stages: [{epochs: 1, size: 128}, {epochs: 1}]\n")
    words = ["train", "--config", str(config), "--images", str(tree), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(words) == 0
    file = tmp_path / "run" / "checkpoint-a.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="damaged") as caught:
        assert main(words) == 0
    line = warnings.formatwarning(caught[0].message, UserWarning, "place.py", 7)
    assert line.startswith("deconvnet: ") and "checkpoint-b.safetensors" in line
    assert "place.py" not in line and line.count("\n") == 1
