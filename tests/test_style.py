"""Style and types, checked by the tools that are made for it."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("tool", [["ruff", "check", "--no-cache"], ["mypy", "--cache-dir=/dev/null"]])
def test_style_and_types(tool):
    ran = subprocess.run([sys.executable, "-m", *tool], cwd=Path(__file__).parents[1], capture_output=True, text=True,
                         check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
