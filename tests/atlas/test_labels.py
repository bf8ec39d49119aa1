"""A teacher's labels for units: a small YAML, whose faults are all named at once."""

import pytest
from payloads import PAYLOADS

from deconvnet.atlas.labels import LONGEST, check
from deconvnet.config import read
from deconvnet.errors import UsageError


def write(folder, text):
    path = folder / "labels.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def labels(folder, text, top):
    path = write(folder, text)
    return check(read(path), top, path.name)


def test_a_teachers_words(small_atlas, tmp_path):
    text = """
    # what we saw in the lecture of the third of May
    conv1:0: stripes from left to right
    conv2:39: "wheels: of cars, and of bicycles"
    conv2:0: >
      a long text
      on two lines
    'conv3:1': 50
    conv3:2: 0.5
    conv1:3: <b>räder</b>
    """
    assert labels(tmp_path, text, small_atlas.top) == {
        "conv1": {0: "stripes from left to right", 3: "<b>räder</b>"},
        "conv2": {39: "wheels: of cars, and of bicycles", 0: "a long text on two lines"},
        "conv3": {1: "50", 2: "0.5"},
    }


FAULTS = [
    ("conv9:0: a", "conv9:0: no such unit; addresses are such as conv"),
    ("conv22:0: a", "conv22:0: no such unit; addresses are such as conv2:0"),
    ("Conv2:0: a", "Conv2:0: no such unit; addresses are such as conv2:0"),
    ("conv1:6: a", "conv1:6: conv1 has 6 units"),
    ("conv1:999999999: a", "conv1:999999999: conv1 has 6 units"),
    (f"conv1:{'9' * 100}: a", "no such unit"),
    ("conv1:-1: a", "conv1:-1: no such unit; addresses are such as conv1:0"),
    ("conv1:1.0: a", "conv1:1.0: no such unit"),
    ("conv1:١: a", "no such unit"),
    ("conv1: a", "conv1: no such unit"),
    ("'5': a", "5: no such unit"),
    ("conv1:2: ''", f"conv1:2: a label has 1 to {LONGEST} characters"),
    ("conv1:2: '   '", "conv1:2: a label has 1"),
    ("conv1:2:", "conv1:2: a label is a text"),
    ("conv1:2: [a, b]", "conv1:2: a label is a text"),
    ("conv1:2: {a: b}", "conv1:2: a label is a text"),
    ("conv1:2: yes", "conv1:2: a label is a text"),
    ("conv1:2: 2026-11-21", "conv1:2: a label is a text"),
    (f"conv1:2: {'x' * (LONGEST + 1)}", f"has 1 to {LONGEST} characters"),
    ("conv1:02: a", "conv1:02: no such unit"),
]


@pytest.mark.parametrize(("line", "says"), FAULTS)
def test_each_fault_is_named(small_atlas, tmp_path, line, says):
    with pytest.raises(UsageError) as caught:
        labels(tmp_path, line, small_atlas.top)
    first, fault = str(caught.value).split("\n")
    assert first == "labels.yaml: 1 of 1 labels cannot be used" and says in fault and len(fault) < 200


def test_all_faults_are_named_at_once_in_their_order(small_atlas, tmp_path):
    unique = {":".join(line.split(":")[:2]): line for line, _ in FAULTS if line.count(":") > 1 and len(line) < 99}
    assert len(unique) > 8
    with pytest.raises(UsageError) as caught:
        labels(tmp_path, "\n".join([*unique.values(), "conv3:0: good"]), small_atlas.top)
    first, *faults = str(caught.value).split("\n")
    assert first == f"labels.yaml: {len(unique)} of {len(unique) + 1} labels cannot be used"
    assert len(faults) == len(unique) and all(f.startswith(f"  {a}:") for f, a in zip(faults, unique, strict=True))


def test_more_faults_than_fit_on_a_screen_are_counted(small_atlas):
    with pytest.raises(UsageError) as caught:
        check({f"conv1:{n}": "x" for n in range(1000)}, small_atlas.top, "x")
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("x: 994 of 1000") and lines[-1] == "  … and 974 more" and len(lines) == 22


NO_MAPPINGS = ["", "# nothing", "- a\n- b", "just words", "conv1:0: a\nconv1:0: b", "a: &x b\nc: *x", "conv1:0: !!x a",
               "conv1:0: [", b"\xff\xfe\x00", "conv1:0: a\x00b", "5: a", "!!python/object/apply:os.system [x]"]


@pytest.mark.parametrize("text", NO_MAPPINGS)
def test_what_is_no_mapping_of_plain_yaml_is_refused(small_atlas, tmp_path, text):
    with pytest.raises(UsageError) as caught:
        labels(tmp_path, text, small_atlas.top)
    assert "labels.yaml" in str(caught.value) and len(str(caught.value)) < 500


def test_a_file_that_is_not_there_is_named(small_atlas, tmp_path):
    with pytest.raises(UsageError, match=r"gone\.yaml"):
        read(tmp_path / "gone.yaml")


@pytest.mark.parametrize("number", range(len(PAYLOADS)))
def test_any_words_are_kept_as_they_are_but_for_spaces(small_atlas, number):
    words = PAYLOADS[number][:LONGEST]
    found = check({"conv1:0": words}, small_atlas.top, "x")
    assert found == {"conv1": {0: " ".join(words.split())}}


def test_an_address_that_is_no_text_does_not_stop_the_message(small_atlas):
    with pytest.raises(UsageError) as caught:
        check({"\ud800": "a", "x" * 5000: "b", "conv1:" + "9" * 5000: "c"}, small_atlas.top, "x")
    str(caught.value).encode()
    assert len(str(caught.value)) < 1000
