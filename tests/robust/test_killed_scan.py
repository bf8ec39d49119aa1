"""A scan that is killed at any moment goes on to the same bytes, and nothing half-written bears its final name."""

import json
import os
import subprocess
import sys

import pytest
import scans
from mortal import ALONE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the lives are forks")

KILLS = 40
"""At random moments; 400 with ``-m extended``."""


def killed(folder, kills):
    ran = subprocess.run([sys.executable, scans.__file__, folder, str(kills)], env=ALONE, capture_output=True,
                         text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return killed(tmp_path_factory.mktemp("scans"), KILLS)


def as_if_nothing_had_been(seen, how):
    assert seen["whole"]["names"] == [scans.RESULT]
    assert all(outcome == seen["whole"] for outcome in seen[how]["outcomes"])


def test_killed_at_random_moments(seen):
    as_if_nothing_had_been(seen, "random")
    assert seen["random"]["kills"] >= KILLS
    assert len(set(seen["random"]["reached"])) > 4  # states that were gone on from


def test_killed_before_everything_that_it_does_to_the_disk(seen):
    as_if_nothing_had_been(seen, "deeds")
    # 8 batches, in one of which no image can be read: each time the state is opened, flushed, renamed twice, its part
    # looked for and its name flushed
    assert seen["deeds"]["kills"] > 8 * 5 and len(set(seen["deeds"]["reached"])) == 8


@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_killed_at_very_many_random_moments(tmp_path):
    seen = killed(tmp_path, 400)
    as_if_nothing_had_been(seen, "random")
    assert seen["random"]["kills"] >= 400
