"""Ctrl-C and TERM: soon, with the state saved, a line that says how to go on, the right exit code, and nobody left."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from itertools import product

import asked
import pytest
from mortal import ALONE
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from deconvnet.cli import main
from deconvnet.errors import AnotherEnded, DeconvnetError
from deconvnet.stopping import Stopped, stoppable, uninterrupted

SCAN = ["scan", "--model", "mine.py:build", "--images", "my photos", "--out", asked.OUT, "--batch-size", "4"]
HANGS = {"decoding": ("deconvnet.images", "read_image", 17), "forward": ("deconvnet.forward", "Forward.__call__", 3),
         "taking in": ("deconvnet.scanned", "LayerScan.keep", 7, 1.0), "writing": ("deconvnet.files", "os.fsync", 4),
         "result": ("deconvnet.files", "os.fsync", 0)}  # where no state is saved before
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Each with its exit code."""


def scans():
    """Every moment of a scan, with so many processes that read, and either signal, to one process or to its group."""
    for (where, hang), workers, number in product(HANGS.items(), (0, 2, 4), SIGNALS):
        if where == "decoding" and workers:
            hang = (*hang[:2], 13 if workers == 2 else 9)  # each process counts for itself
        yield f"{where} {workers} {number.name}", {
            "words": [*SCAN, "--workers", str(workers)], "hangs": [hang], "signals": [number],
            "group": workers != 4, "save": where == "writing"}


COMMANDS = {
    "gallery": (["gallery", "top.safetensors", "--out", "sheets"], ("deconvnet.report", "layer_sheet", 0)),
    "atlas": (["atlas", "top.safetensors", "--out", "atlas"], ("deconvnet.atlas.pages", "write", 0)),
    "demo": (["demo", "--out", "demo"], ("deconvnet.forward", "Forward.__call__", 0)),
    "figure": (["figure", "3", "--out", "figures"], ("deconvnet.exhibit", "png", 0)),
    "table": (["table", "3", "--out", "tables"], ("deconvnet.exhibit", "Table.write", 0)),
    "compare": (["compare", "zfnet", "alexnet"], ("deconvnet.figures.selection", "compare", 0)),
    "describe": (["describe", "mine.py:build"], ("deconvnet.describe", "describe", 0)),
}


def commands():
    for (name, (words, hang)), number in product(COMMANDS.items(), SIGNALS):
        yield f"{name} {number.name}", {"words": words, "hangs": [hang], "signals": [number], "group": True}


SHORT = ("decoding 2 SIGTERM", "forward 0 SIGINT", "writing 0 SIGTERM", "result 0 SIGINT", "gallery SIGINT")


def ask(folder, cases):
    file = folder / "cases.json"
    file.write_text(json.dumps(cases))
    ran = subprocess.run([sys.executable, asked.__file__, folder, file], env=ALONE, capture_output=True, text=True,
                         check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def ends_as_it_should(name, case, end):
    print(name, end)  # seen where it fails
    number = case["signals"][0]
    assert end["code"] == SIGNALS[number] and end["alone"] and end["left"] == []
    assert end["seconds"] < 5
    assert "Traceback" not in end["text"] and "Error" not in end["text"]
    [line] = end["lines"]
    assert line.endswith(f": {shlex.join(['deconvnet', *case['words']])}") and "some where" not in line
    if case["words"][0] == "scan":
        assert end["seen"] >= (40 if name.startswith("result") else 4) and end["same"]


everywhere = pytest.mark.skipif(not hasattr(os, "fork"), reason="the commands are forks")


def twice():
    """Asked while it computes, a scan saves its state, in which it hangs; then it is asked again."""
    for workers, number in [(2, signal.SIGINT)]:
        yield f"twice {workers} {number.name}", {
            "words": [*SCAN, "--workers", str(workers)], "signals": [number, number], "group": workers > 0,
            "hangs": [("deconvnet.forward", "Forward.__call__", 4), ("deconvnet.files", "os.fsync", 0)]}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    cases = {name: case for name, case in [*scans(), *commands()] if name in SHORT}
    assert len(cases) == len(SHORT)
    return ask(tmp_path_factory.mktemp("asked"), cases | dict(twice()))


@everywhere
@pytest.mark.parametrize("name", SHORT)
def test_a_command_that_is_asked_to_stop(name, ends):
    ends_as_it_should(name, dict([*scans(), *commands()])[name], ends[name])


@everywhere
@pytest.mark.parametrize("name", dict(twice()))
def test_asked_twice_it_leaves_at_once(name, ends):
    case, end = dict(twice())[name], ends[name]
    assert end["code"] == SIGNALS[case["signals"][0]] and end["alone"] and end["seconds"] < 2
    [line] = end["lines"]
    assert "stopped at once" in line and line.endswith(shlex.join(["deconvnet", *case["words"]]))
    assert end["same"]


@everywhere
@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_every_command_at_every_moment(tmp_path):
    cases = dict([*scans(), *commands()])
    assert len(cases) == 5 * 3 * 2 + 7 * 2
    for name, end in ask(tmp_path, cases).items():
        ends_as_it_should(name, cases[name], end)


@everywhere
@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_a_scan_at_random_moments(tmp_path):
    chance = random.Random(0)
    cases = {str(n): {"words": [*SCAN, "--workers", str(n % 3)], "signals": [chance.choice(list(SIGNALS))],
                      "group": n % 2 == 0, "save": n % 4 < 2, "after": 0.02 + 1.5 * chance.random() ** 3}
             for n in range(100)}
    stopped = 0
    for name, end in ask(tmp_path, cases).items():
        print(name, end)
        assert end["code"] in (0, SIGNALS[cases[name]["signals"][0]]) and end["alone"] and end["left"] == []
        assert end["same"] and end["seconds"] < 5 and "Traceback" not in end["text"]
        assert len(end["lines"]) == (end["code"] > 0)
        stopped += end["code"] > 0
    assert stopped > 20


SWALLOWS = """
import pathlib, time
pathlib.Path(r"{mark}").touch()
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("module", ["jsonargparse", "torch"])
def test_while_it_imports_what_swallows_signals(module, number, tmp_path):
    mark = tmp_path / "imports"
    (tmp_path / f"{module}.py").write_text(SWALLOWS.format(mark=mark))
    environment = {**ALONE, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen([sys.executable, "-m", "deconvnet", "describe", "zfnet"], stderr=subprocess.PIPE, text=True,
                          env=environment) as command:
        while not mark.exists():
            assert command.poll() is None
            time.sleep(0.01)
        command.send_signal(number)
        late = threading.Timer(5, command.kill)
        late.start()
        said = command.communicate()[1]
        late.cancel()
    assert command.returncode == SIGNALS[number] and "Traceback" not in said
    assert said.endswith("deconvnet describe zfnet\n") or module != "torch"


# ---- in a program of one's own ----


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


def act(monkeypatch, deed):
    """Has the command describe do something else."""
    monkeypatch.setattr("deconvnet.describe.describe", lambda *_: deed())
    return main(["describe", "alexnet"])


@pytest.mark.parametrize("number", SIGNALS)
def test_called_from_a_program_it_gives_its_code_and_the_handlers_back(number, monkeypatch, capsys):
    before = handlers()
    assert act(monkeypatch, lambda: signal.raise_signal(number)) == SIGNALS[number]
    assert capsys.readouterr().err == ("deconvnet: stopped; the same command goes on where it can: "
                                       "deconvnet describe alexnet\n")
    assert handlers() == before


def test_of_processes_that_torchrun_began_the_first_speaks(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    for rank, said in [("1", ""), ("0", "deconvnet: stopped; the same command goes on where it can: "
                                        "torchrun … deconvnet describe alexnet\n")]:
        monkeypatch.setenv("RANK", rank)
        assert act(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM)) == 143
        assert capsys.readouterr().err == said


@pytest.mark.parametrize("failure", [None, DeconvnetError("cause"), AnotherEnded("follows")])
def test_torchrun_repeats_at_last_what_each_process_said(failure, monkeypatch, tmp_path, capsys):
    def deed():
        if failure:
            raise failure
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setenv("RANK", "1")
    now = int(time.time())
    assert act(monkeypatch, deed) == (1 if failure else 143)
    said = ProcessFailure(0, 1, 1, str(tmp_path / "error.json"))
    words = str(failure or "stopped; the same command goes on where it can: torchrun … deconvnet describe alexnet")
    assert said.message["extraInfo"]["py_callstack"] == words  # what it shows
    assert bool(capsys.readouterr().err) == bool(failure)
    assert (said.timestamp - now > 2) == (str(failure) != "cause")  # the one that says the first time is the cause


def test_stopped_when_it_is_all_but_over_it_is_stopped_like_ever(monkeypatch, capsys):
    """While the handlers are given back; then all of them are."""
    before, real, coming = handlers(), signal.signal, []

    def late(number, handler):
        if coming:
            signal.raise_signal(coming.pop())
        return real(number, handler)

    monkeypatch.setattr(signal, "signal", late)
    monkeypatch.setattr("deconvnet.cli._run", lambda *_: coming.append(signal.SIGTERM))
    assert main(["scan"]) == 143
    assert capsys.readouterr().err.startswith("deconvnet: stopped")
    assert handlers() == before


def test_an_error_that_a_library_makes_of_the_signal_is_a_stop_all_the_same(monkeypatch, capsys):
    """As those in C do that build something while they are imported."""
    def deed():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as stop:
            raise ValueError(f"Error building `model`: {stop}") from None

    assert act(monkeypatch, deed) == 143
    assert capsys.readouterr().err == ("deconvnet: stopped; the same command goes on where it can: "
                                       "deconvnet describe alexnet\n")


def test_called_from_a_program_a_second_signal_does_not_end_that(monkeypatch, capsys):
    def deed():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)

    assert act(monkeypatch, deed) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_signal_that_was_ignored_stays_so(monkeypatch, capsys):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and a shell's & have it
    try:
        def deed():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("it went on")

        assert act(monkeypatch, deed) == 1
        assert "it went on" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_that_is_not_the_first_runs_commands_too(capsys):
    codes, before = [], handlers()
    thread = threading.Thread(target=lambda: codes.append(main(["describe", "no such"])))
    thread.start()
    thread.join()
    assert codes == [2] and handlers() == before


@pytest.mark.parametrize("times", [1, 2])
def test_what_must_not_be_interrupted_is_not_unless_asked_twice(times):
    done, before = [], handlers()
    with pytest.raises(Stopped) as stopped, stoppable("said", lambda number: done.append("again")), uninterrupted():
        for _ in range(times):
            signal.raise_signal(signal.SIGTERM)
            done.append("on")
    assert done == (["on"] if times == 1 else ["on", "again"])
    assert stopped.value.code == 143 and str(stopped.value) == "said" and handlers() == before


@pytest.mark.parametrize(("words", "line"), [
    (["scan", "--images", "my photos"], "deconvnet scan --images 'my photos'"),
    (["gallery", "it's.safetensors", "--out", "$HOME"], """deconvnet gallery 'it'"'"'s.safetensors' --out '$HOME'"""),
])
def test_the_line_can_be_typed(words, line, monkeypatch, capsys):
    monkeypatch.setattr("deconvnet.cli._run", lambda *_: signal.raise_signal(signal.SIGINT))
    for program, before in [("/home/someone/bin/deconvnet", ""), ("/home/someone/deconvnet/__main__.py", "python -m ")]:
        monkeypatch.setattr(sys, "argv", [program, *words])
        assert main() == 130
        assert capsys.readouterr().err == f"deconvnet: stopped; the same command goes on where it can: {before}{line}\n"
    assert shlex.split(line)[1:] == words
