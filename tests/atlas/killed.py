"""A program: makes an atlas in processes that are killed, again and again, until it is there; prints how often.

It has imported everything, so that a life costs a fork: python killed.py SCAN PHOTOGRAPHS FOLDER KILLS
"""

import json
import os
import random
import signal
import sys
from functools import cache
from pathlib import Path

import tiny
import torch
from mortal import live
from PIL import Image

import deconvnet.files
from deconvnet.atlas import pages

LAYERS = ("conv3",)


def check(folder: Path) -> int:
    """Whatever bears its final name is whole; how many files do."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part"]
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".webp":
            Image.open(path).load()
        else:
            assert path.read_text().rstrip().endswith(("</html>", "}", ";")), path
    return len(files)


def main() -> None:
    torch.set_num_threads(1)
    os.fsync = deconvnet.files._flush_disk = lambda file: None  # the power is not cut
    pages.environment = cache(pages.environment)
    for name in ("overview", "layer", "unit"):
        pages.environment().get_template(f"{name}.html")
    net, folder, kills = tiny.Tiny(), Path(sys.argv[3]), int(sys.argv[4])
    top, images = deconvnet.read_scan(sys.argv[1]), tiny.open_images(Path(sys.argv[2]), net)
    rng, seen = random.Random(0), {"kills": 0, "atlases": 0, "files": []}
    while seen["kills"] < kills:
        out, code = folder / str(seen["atlases"]), -1
        while code:
            how = {} if seen["kills"] >= kills else {"seconds": rng.uniform(0.001, 0.15)} if seen["kills"] % 3 == 0 \
                else {"point": int(2 ** rng.uniform(0, 6.7)) - 1}
            code = live(lambda: tiny.make(out, net, top, images, LAYERS), **how)  # noqa: B023
            assert code in (0, -signal.SIGPROF, -signal.SIGKILL), code
            seen["kills"] += code != 0
            seen["files"].append(check(out) if out.exists() else 0)
        seen["atlases"] += 1
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
