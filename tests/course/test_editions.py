"""The notebooks are what their sources make: for students without solutions, for teachers with them."""

import importlib.util
import json
import re
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
specification = importlib.util.spec_from_file_location("editions", ROOT / "notebooks" / "editions.py")
editions = importlib.util.module_from_spec(specification)
specification.loader.exec_module(editions)

NOTEBOOKS = sorted(path for folder in ("notebooks", "notebooks/teacher") for path in (ROOT / folder).glob("*.ipynb"))
SOURCES = sorted((ROOT / "notebooks" / "source").glob("*.py"))
EXERCISE = '''# %% [markdown]
# # Title

# %% tags=["exercise"]
def double(x):
    """Twice x."""
    # solution: say "add" to it
    y = x

    return x + y
    # end of solution

# %% tags=["check"]
check.double(double)
'''


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "1_double.py"
    path.write_text(EXERCISE, encoding="utf-8")
    return path


def cells(text):
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"]]


def test_the_student_gets_a_hint_and_the_teacher_the_solution(source):
    head = 'def double(x):\n    """Twice x."""\n'
    student, teacher = (cells(editions.edition(source, write)) for write in (editions.student, editions.teacher))
    assert student == ["# Title", f'{head}    raise NotImplementedError("say \\"add\\" to it")', "check.double(double)"]
    assert teacher == ["# Title", f"{head}    y = x\n\n    return x + y", "check.double(double)"]


def test_a_notebook_has_the_same_bytes_every_time_and_nothing_of_the_machine(source):
    text = editions.edition(source)
    assert text == editions.edition(source)
    made = json.loads(text)
    assert made["metadata"] == {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                                "language_info": {"name": "python"}}
    assert [cell["id"] for cell in made["cells"]] == ["cell-01", "cell-02", "cell-03"]
    assert [cell["metadata"] for cell in made["cells"]] == [{}, {"tags": ["exercise"]}, {"tags": ["check"]}]


@pytest.mark.parametrize(("old", "new"), [
    ("    # end of solution\n", ""), ("    # solution: say \"add\" to it\n", ""),
    ("    # end of solution", "# end of solution"), ("# solution: say \"add\" to it", "# solution:"),
    (' tags=["exercise"]', ""), (' tags=["check"]', ""), ("    y = x", "    # solution: another\n    y = x")])
def test_a_source_with_a_mark_in_the_wrong_place_is_refused(source, old, new):
    assert old in EXERCISE
    source.write_text(EXERCISE.replace(old, new), encoding="utf-8")
    with pytest.raises(editions.Malformed, match=r"1_double.py, cell 2"):
        editions.edition(source)


@pytest.fixture
def elsewhere(source, monkeypatch):
    """The generator, at work in another folder."""
    for name, path in (("HERE", source.parent), ("SOURCE", source.parent), ("TEACHER", source.parent / "teacher")):
        monkeypatch.setattr(editions, name, path)
    return source.parent


def test_what_is_stale_is_named(elsewhere, capsys):
    assert editions.main(["--check"]) == 1 and "stale: 1_double.ipynb" in capsys.readouterr().out
    assert editions.main([]) == 0 and editions.main(["--check"]) == 0
    capsys.readouterr()
    (elsewhere / "teacher" / "1_double.ipynb").write_text("{}")
    (elsewhere / "2_left_over.ipynb").write_text("{}")
    assert editions.main(["--check"]) == 1
    out = capsys.readouterr().out
    assert "teacher/1_double.ipynb" in out.replace("\\", "/") and "2_left_over" in out and out.count("stale") == 2


def test_an_unknown_word_is_answered_with_the_usage(capsys):
    assert editions.main(["--chekc"]) == 2 and "--check" in capsys.readouterr().out


# ---- what is committed ----

def test_every_notebook_is_what_its_source_makes():
    assert NOTEBOOKS and not editions.stale()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_outputs_no_local_name(path):
    text = path.read_text(encoding="utf-8")
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert not re.search(r"""(^|[\s"'(=`])/(home|root|Users|tmp|mnt|opt|var)\b|[A-Z]:\\""", text)
    assert str(ROOT) not in text and str(Path.home()) not in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text) or len(socket.gethostname()) < 4


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name[0].isdigit()], ids=lambda path: path.stem)
def test_a_lesson_has_exercises_and_questions(path):
    text = path.read_text(encoding="utf-8")
    assert text.count('tags=["exercise"]') >= 3 and text.count('tags=["check"]') >= 3
    questions = len(re.findall(r"^# \*\*Question", text, re.MULTILINE))
    assert questions >= 2 and text.count("<details>") == text.count("</details>") == questions


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_solution_is_not_in_the_students_edition(path):
    student = (ROOT / "notebooks" / f"{path.stem}.ipynb").read_text(encoding="utf-8")
    assert student.count("raise NotImplementedError(") == path.read_text(encoding="utf-8").count("# solution: ")
    assert "of solution" not in student
