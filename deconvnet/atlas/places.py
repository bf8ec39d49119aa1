"""Where things lie in an atlas: ``conv5/147`` is unit 147 of layer conv5, in every version of the atlas.

A name from outside becomes one plain name of a folder, whatever it looks like, and another one for each.
"""

from collections.abc import Sequence
from hashlib import sha256
from urllib.parse import quote

from ..layout import printable
from ..report import file_name

OWN = ("index", "index.html", "atlas.json", "static", "images", "beside", "both", "own")  # what lies beside the layers
LONGEST = 100  # characters of a folder's name; file systems take 255 bytes in all


def folders(layers: Sequence[str]) -> dict[str, str]:
    """The folder of each layer: its name where that is plain, escaped as in web addresses where it is not.

    No two are the same on a file system that takes capitals for small letters, and none is one of the atlas' own.
    """
    taken = set(OWN)
    places = {}
    for layer in layers:
        plain = _plain(layer)
        name, number = plain, 2
        while name.lower() in taken:
            name, number = f"{plain}~{number}", number + 1
        taken.add(name.lower())
        places[layer] = name
    return places


def _plain(layer: str) -> str:
    name = file_name(printable(layer))
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}~{sha256(name.encode()).hexdigest()[:12]}"
    if name.endswith("."):  # Windows drops it
        name = f"{name[:-1]}%2E"
    return f"%2E{name[1:]}" if name.startswith(".") else name or "~"


def link(*parts: str | int) -> str:
    """The parts of a path as a relative address for a page."""
    return "/".join(".." if part == ".." else quote(str(part), safe="") for part in parts)
