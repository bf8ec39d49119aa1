"""One process at a time upon one output: the second is told who has it, and a killed one leaves nothing that blocks."""

import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import asked
import pytest
from mortal import ALONE
from scans import RESULT, STATE, Drawings, act, network

from deconvnet import files
from deconvnet.cli import main
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.files import LOCK, begun, flush_all, sole_writer, sweep
from deconvnet.scan import scan
from deconvnet.scanned import read_scan

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forks")

HELD = re.compile(r"(.+) is being written by process (\d+) on (.+) since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: wait for it")


def forked(deed) -> int:
    """A process that does something and ends."""
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            deed()
        os._exit(0)
    return pid


@pytest.mark.parametrize("name", ["", "top.safetensors", "n" * 255])
def test_the_second_is_told_who_is_the_first(tmp_path, name):
    with sole_writer(tmp_path / name):
        for _ in range(2):
            with pytest.raises(DeconvnetError) as refused, sole_writer(tmp_path / name):
                pass
            path, pid, host = HELD.match(str(refused.value)).groups()
            assert path == str(tmp_path / name) and int(pid) == os.getpid() and host == platform.node()
    assert list(tmp_path.iterdir()) == []
    with sole_writer(tmp_path / name):
        pass


def test_files_beside_each_other_do_not_hinder_each_other(tmp_path):
    with sole_writer(tmp_path / "a"), sole_writer(tmp_path / "b"), sole_writer(tmp_path):
        assert len(list(tmp_path.iterdir())) == 3


def test_what_the_lock_leaves_in_a_folder_is_known(tmp_path):
    with sole_writer(tmp_path):
        assert [begun(path) for path in tmp_path.iterdir()] == [True]
        sweep(tmp_path)
        assert (tmp_path / LOCK).exists()


@forks
@pytest.mark.parametrize("repeat", range(3))
def test_of_many_at_once_one_begins_and_the_others_name_it(tmp_path, repeat):
    """Twelve that start together; whoever has it stays until all others were refused."""
    if repeat:  # what a killed one has left says nothing
        (tmp_path / LOCK).write_text("process 1 on elsewhere since 1970-01-01 00:00:00\n")
    start, end, told = multiprocessing.Event(), multiprocessing.Event(), multiprocessing.Queue()

    def begin():
        start.wait()
        try:
            with sole_writer(tmp_path):
                told.put((os.getpid(), ""))
                end.wait()
        except DeconvnetError as error:
            told.put((os.getpid(), str(error)))
        told.close()
        told.join_thread()

    pids = [forked(begin) for _ in range(12)]
    start.set()
    heard = dict(told.get(timeout=30) for _ in pids)
    end.set()
    for pid in pids:
        os.waitpid(pid, 0)
    [first] = [pid for pid, error in heard.items() if not error]
    assert set(heard) == set(pids)
    named = {int(HELD.match(error)[2]) for error in heard.values() if error}
    assert named <= {first, 1} and first in named
    assert list(tmp_path.iterdir()) == []


@forks
def test_killed_it_leaves_nothing_that_blocks_though_what_it_began_lives_on(tmp_path):
    reader, writer = os.pipe()

    def begin():
        with sole_writer(tmp_path):
            worker = forked(lambda: time.sleep(60))
            os.write(writer, f"{worker}\n".encode())
            time.sleep(60)

    pid = forked(begin)
    worker = int(os.read(reader, 20))
    with pytest.raises(DeconvnetError, match=f"process {pid} "), sole_writer(tmp_path):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.kill(worker, 0)  # it is there
    assert (tmp_path / LOCK).exists()
    with sole_writer(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / LOCK).read_text()
    assert not (tmp_path / LOCK).exists()
    os.kill(worker, signal.SIGKILL)


@forks
def test_what_was_forked_neither_frees_nor_removes_it(tmp_path):
    lock = sole_writer(tmp_path)
    with lock:
        os.waitpid(forked(lambda: lock.__exit__(None, None, None)), 0)  # through the end of the block
        with pytest.raises(DeconvnetError), sole_writer(tmp_path):
            pass


def test_a_lock_upon_a_file_that_has_just_been_removed_is_none(tmp_path, monkeypatch):
    """Whoever had it removed it between the opening and the locking of it by another."""
    real, tried = files._lock, []

    def lock(number):
        if not tried:
            (tmp_path / LOCK).unlink()
        tried.append(number)
        real(number)

    monkeypatch.setattr(files, "_lock", lock)
    with sole_writer(tmp_path):
        assert len(tried) == 2
        with pytest.raises(DeconvnetError), sole_writer(tmp_path):
            pass


def test_threads_of_one_process_too(tmp_path):
    errors = []

    def begin():
        try:
            with sole_writer(tmp_path):
                errors.append("none")
        except DeconvnetError as error:
            errors.append(str(error))

    with sole_writer(tmp_path):
        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
    assert HELD.match(errors[0])


def test_where_there_are_no_locks_that_is_said(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", none)
    with pytest.warns(UserWarning, match="no locks"), sole_writer(tmp_path):
        pass


def test_where_none_can_be_written_that_is_said(tmp_path):
    with pytest.raises(DeconvnetError, match="a/b cannot be written: No such file"), sole_writer(tmp_path / "a" / "b"):
        pass


# ---- commands ----


@pytest.fixture
def place(tmp_path, monkeypatch):
    asked.prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = {
    "scan": ["scan", "--model", "mine.py:build", "--images", "my photos", "--out", "there/top.safetensors"],
    "gallery": ["gallery", "top.safetensors", "--out", "there"],
    "atlas": ["atlas", "top.safetensors", "--out", "there"],
    "demo": ["demo", "--out", "there"],
    "figure": ["figure", "3", "--out", "there"],
    "table": ["table", "3", "--out", "there"],
    "compare": ["compare", "zfnet", "alexnet", "--out", "there"],
    "train": ["train", "--config", "recipe.yaml", "--out", "there"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_command_is_refused_before_it_does_anything(name, place, capsys):
    (place / "there").mkdir()
    (place / "recipe.yaml").write_text("{images: my photos, widths: [4, 4, 4, 4, 4], stages: [{epochs: 1}]}")
    with sole_writer(place / COMMANDS[name][-1]):
        before = sorted(place.rglob("*"))
        assert main(COMMANDS[name]) == 1
        assert sorted(place.rglob("*")) == before
    [line] = capsys.readouterr().err.strip().splitlines()
    assert HELD.match(line.removeprefix("deconvnet: ")), line


@pytest.mark.parametrize("name", ["scan", "gallery"])
def test_afterwards_nothing_is_left_of_it(name, place):
    assert main([*COMMANDS["scan"][:-1], "top.safetensors"]) == 0
    if name == "gallery":
        assert main(COMMANDS["gallery"]) == 0
    assert not [path for path in place.rglob("*") if path.suffix in (".lock", ".part")]


def test_two_scans_from_python_too(tmp_path):
    with sole_writer(tmp_path / STATE), pytest.raises(DeconvnetError, match="is being written by process"):
        act(tmp_path)
    act(tmp_path)


@pytest.mark.parametrize("checkpoint", [None, "another.partial"])
def test_two_scans_with_one_result_whatever_their_states_are(checkpoint, tmp_path):
    options = {"checkpoint": checkpoint and tmp_path / checkpoint, "out": tmp_path / RESULT}
    told = []

    class Asking(Drawings):
        def __getitem__(self, index):
            if index == 9:
                with pytest.raises(DeconvnetError) as refused:
                    scan(network(), Drawings(), **options)
                with pytest.raises(DeconvnetError, match="is being written by process"):
                    read_scan(tmp_path / "other").save(tmp_path / RESULT)
                told.append(str(refused.value))
            return super().__getitem__(index)

    scan(network(), Drawings(3), out=tmp_path / "other")
    act(tmp_path, Asking())
    [line] = told
    assert HELD.match(line)[1] == str(tmp_path / RESULT)
    assert {path.name for path in tmp_path.iterdir()} == {RESULT, "other"} and read_scan(tmp_path / RESULT).count == 19
    scan(network(), Drawings(), **options)


def test_a_scan_that_is_saved_neither_waits_nor_leaves_anything(tmp_path):
    found = scan(network(), Drawings())
    part = tmp_path / f".{files._mark(tmp_path / RESULT)}-1-2.part"
    part.touch()  # by one that was killed
    found.save(tmp_path / RESULT)
    assert [path.name for path in tmp_path.iterdir()] == [RESULT]


@pytest.mark.parametrize("out", [STATE, f"{STATE}.previous"])
def test_no_state_can_be_where_the_result_is_to_be(tmp_path, out):
    with pytest.raises(UsageError, match="are the same file"):
        scan(network(), Drawings(), checkpoint=tmp_path / STATE, out=tmp_path / out)


def test_a_full_disk_hinders_nobody_from_having_a_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with sole_writer(tmp_path / "a"), \
                pytest.raises(DeconvnetError, match="is being written by another process: wait"), \
                sole_writer(tmp_path / "a"):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all disks are flushed")
def test_many_files_are_flushed_by_their_own_disk_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sync", lambda: pytest.fail("every disk of the machine"))
    flush_all(tmp_path)
    flushed = []
    monkeypatch.setattr(files, "_flush_disk", lambda number: flushed.append(os.fstat(number)))
    flush_all(tmp_path)
    assert [(there.st_dev, there.st_ino) for there in flushed] == [(tmp_path.stat().st_dev, tmp_path.stat().st_ino)]
    monkeypatch.undo()
    with pytest.raises(OSError, match="Bad file descriptor"):
        files._flush_disk(-1)

    def broken(number):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "_flush_disk", broken)
    with pytest.raises(DeconvnetError, match=f"{tmp_path} cannot be written: Input/output error"):
        flush_all(tmp_path)


@forks
@pytest.mark.extended
def test_ten_real_commands_at_once(place):
    """One of them scans, to the end; each other names it."""
    script = "from deconvnet.cli import main; import sys; sys.exit(main())"
    begun = [subprocess.Popen([sys.executable, "-c", script, *COMMANDS["scan"]], cwd=place, env=ALONE, text=True,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(10)]
    errors = {one.pid: one.communicate()[1] for one in begun}
    codes = {one.pid: one.returncode for one in begun}
    through = {pid for pid, code in codes.items() if code == 0}
    assert through and set(codes.values()) <= {0, 1}
    for pid in set(codes) - through:
        assert int(HELD.search(errors[pid])[2]) in through
    assert [path.name for path in (place / "there").iterdir()] == ["top.safetensors"]
