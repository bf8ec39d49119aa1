"""The README does what it says."""

import re
from pathlib import Path

import pytest

from deconvnet import cli

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
LINES = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]


def test_the_python_runs(capsys):
    (code,) = [block for language, block in BLOCKS if language == "python"]
    exec(compile(code, str(README), "exec"), {})
    assert re.search(r"conv5:\d+ fires at \d", capsys.readouterr().out)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("deconvnet")])
def test_every_command_is_understood(line):
    words = line.partition(" #")[0].split()[1:]
    command, options = cli._parse(words)
    assert command is cli.COMMANDS[words[0]] and options


def test_the_two_commands_need_nothing_but_python():
    demo, tests = (line for line in LINES if line.startswith("python3 -m venv"))
    assert demo.endswith("deconvnet demo") and tests.endswith("-m pytest -n 2")


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)]+)\)", README.read_text(encoding="utf-8")))
def test_every_file_that_is_linked_is_there(link):
    assert (README.parent / link).exists()
