"""Writes the pictures of the README's table: from each teacher's edition what one of its cells shows, cut and shrunk.

    python notebooks/pictures.py [NUMBER …]     runs all notebooks, or these, and writes notebooks/pictures/NUMBER.jpg
"""

import base64
import io
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from PIL import Image

HERE = Path(__file__).parent
WIDTH, MOST = 360, 40_000  # pixels, and bytes of a picture

CELLS = {  # number of the notebook: (a piece of the cell that shows it, what to cut: left, top, right, bottom, 0 … 1)
    1: ('(third,) = deconvnet.gallery(net, top, "conv3"', (0, 0.09, 1, 1)),
    2: ('"written over (max_unpool2d)", "summed"]', (0, 0, 1, 0.9)),
    3: ('"your projection", "its field"', (0, 0, 1, 0.92)),
    4: ('deconvnet.gallery(net, top, "conv5", unnamed, images)', (0, 0.07, 1, 1)),
    5: ('panels = [draw_filters(', (0, 0, 1, 1)),
    6: ('where the square\\ncosts most probability', (0, 0, 1, 0.325)),
    7: ('lenders = [cut(', (0, 0, 1, 0.525)),
    8: ('deconvnet.gallery(small, top, "bn3"', (0, 0.08, 1, 1)),
}


def shown(number: int) -> Image.Image:
    """What the chosen cell of a notebook shows, when the notebook is run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Jupyter's own parts say of each other is not ours
        from nbclient import NotebookClient

        (path,) = (HERE / "teacher").glob(f"{number}_*.ipynb")
        book = nbformat.read(path, as_version=4)
        with TemporaryDirectory() as folder:  # a lesson may leave something
            NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    (cell,) = [cell for cell in book.cells if cell.cell_type == "code" and CELLS[number][0] in cell.source]
    png = next(output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
    return Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")


def small(picture: Image.Image, box: tuple[float, float, float, float]) -> bytes:
    """The part of a picture as a JPEG file that is WIDTH pixels wide, as good as MOST bytes allow."""
    part = picture.crop(tuple(round(share * side) for share, side in zip(box, picture.size * 2, strict=True)))
    part = part.resize((WIDTH, round(part.height * WIDTH / part.width)), Image.Resampling.LANCZOS)
    for quality in range(92, 20, -4):
        file = io.BytesIO()
        part.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= MOST:
            break
    return file.getvalue()


def main(words: list[str]) -> None:
    """Writes the pictures of the notebooks with these numbers, or of all."""
    for number in map(int, words or CELLS):
        (HERE / "pictures" / f"{number}.jpg").write_bytes(small(shown(number), CELLS[number][1]))


if __name__ == "__main__":
    main(sys.argv[1:])
