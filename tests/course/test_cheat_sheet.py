"""The cheat sheet: its Python runs, its commands are understood, its numbers and names are those of the library."""

import re
from pathlib import Path

import pytest
from deconvnet.models import MODELS

import deconvnet
from deconvnet import cli
from deconvnet.describe import describe
from deconvnet.inverses import OPERATIONS

SHEET = Path(__file__).parents[2] / "notebooks" / "cheat_sheet.md"
TEXT = SHEET.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
FIELD, PYTHON = (block for language, block in BLOCKS if language == "python")
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]


def rows(table):
    """The cells of a table's rows by their first cell."""
    lines = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in TEXT.splitlines()
             if line.startswith("|") and table(line)]
    return {cells[0]: cells[1:] for cells in lines}


def test_the_python_runs_and_says_what_comes():
    found = {}
    exec(compile(PYTHON, str(SHEET), "exec"), found)
    p, unit, top = found["p"], found["unit"], found["found"]
    assert p.pixels.shape == (1, 3, 139, 139) and p.on_canvas().shape == (1, 3, 224, 224)
    assert p.values[0] == pytest.approx(float(top.values[unit, 0]), rel=1e-4)
    assert found["g"]._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", re.findall(r"[ #](\.[a-z_]+)", "".join(
    line.partition("#")[2] and f" {line.partition('#')[2]}\n" for line in PYTHON.splitlines())))
def test_every_attribute_that_a_comment_names_is_there(name):
    from deconvnet.images import Images
    from deconvnet.scanned import LayerScan
    owners = [deconvnet.load_model("zfnet"), LayerScan.blank(1, 1), deconvnet.Tape([], [], {}), deconvnet.Gallery,
              Images]
    there = {part for owner in owners for part in (*dir(owner), *getattr(owner, "__annotations__", {}))}
    assert name[1:] in there


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line):
    words = [word.replace("-", "_").replace("__", "--", 1) if word.startswith("--") else word
             for word in line.partition(" #")[0].split()]  # as main does
    command, options = cli._parse(words[1:])
    assert words[0] == "deconvnet" and command is cli.COMMANDS[words[1]] and options


def test_every_command_is_on_the_sheet():
    assert {line.split()[1] for line in COMMANDS} == set(cli.COMMANDS)


def test_the_constants_of_zfnet_are_those_of_the_network():
    net = deconvnet.load_model("zfnet")
    layers = {layer.name: layer for layer in describe(net)}
    table = rows(lambda line: re.match(r"\| (\||units|map|field|every|start)", line))
    heads = table.pop("")
    assert list(table) == ["units", "map", "field", "every", "start"] and len(heads) == 11
    for n, name in enumerate(heads):
        layer, field = layers[name], layers[name].field
        fields = [] if name.startswith("fc") else [field.size[0], field.stride[0], field.start[0]]
        expected = [layer.units, layer.size[0], *fields]
        column = [int(cells[n].replace("−", "-")) for cells in table.values() if cells[n]]
        assert column == expected
    assert f"{sum(p.numel() for p in net.parameters()):,} parameters" in TEXT


def test_the_formula_gives_the_fields_of_zfnet():
    found = {}
    exec(compile(FIELD, str(SHEET), "exec"), found)
    layers = describe(deconvnet.load_model("zfnet"))
    steps = []
    for layer in layers:
        if layer.slide and layer.kind in ("Conv2d", "MaxPool2d"):
            steps.append((layer.slide.kernel[0], layer.slide.stride[0], layer.slide.padding[0]))
            assert found["field"](steps) == (layer.field.size[0], layer.field.stride[0], layer.field.start[0])
    assert len(steps) == 8


def test_the_rules_and_the_names_are_those_that_there_are():
    functions = {function.__name__ for function in OPERATIONS}
    named = [name for first in rows(lambda line: "`" in line) for name in re.findall(r"`(\w+)`", first)]
    assert len(named) > 8 and set(named) - {"forward"} <= functions
    assert all(f"`{name}`" in TEXT for name in MODELS)


def test_it_is_one_page():
    assert len(TEXT.splitlines()) < 110 and all(len(line) < 140 for line in TEXT.splitlines())
