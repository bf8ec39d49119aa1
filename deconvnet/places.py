"""Where, on this machine, the images, weights and files that a scan read lie.

A scan may be shared, so it holds no path; it says what it read by a hash. This note of one's own, in the user's cache
folder, is what lets ``deconvnet gallery FILE`` find the images again without being told.
"""

import json
import os
from pathlib import Path

from platformdirs import user_cache_path

_NOTE = "places.json"


def remember(key: str, place: str) -> None:
    """Note where something lies. Where no cache can be written, one is asked for the place later."""
    note = user_cache_path("deconvnet") / _NOTE
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        beside = note.with_name(f"{_NOTE}.{os.getpid()}")
        beside.write_text(json.dumps(_read(note) | {key: place}, indent=1), encoding="utf-8")
        beside.replace(note)
    except OSError:
        pass


def recall(key: str) -> str | None:
    """Where something was last seen; None if that was never noted."""
    return _read(user_cache_path("deconvnet") / _NOTE).get(key)


def _read(note: Path) -> dict[str, str]:
    try:
        places = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: it is only a convenience
        return {}
    return places if isinstance(places, dict) else {}
