"""Accuracy on held-out pictures: the mean over the classes, from one central view or from the paper's ten."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..images import Preprocess, window
from ..processes import ALONE, Here
from .stopping import wait_for_the_parent
from .views import CORNERS, Pictures, sub_crop

BATCH = 64  # pictures; of ten views each, a tenth


class Inputs(Dataset):
    """What a network is given of a picture, (views, 3, size, size), and its label."""

    def __init__(self, pictures: Pictures, preprocess: Preprocess, ten: bool, means: Tensor | None) -> None:
        self.pictures, self.preprocess, self.ten = pictures, preprocess, ten
        self.each = [preprocess] * 10 if means is None else [replace(preprocess, mean_picture=m.numpy()) for m in means]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self.pictures[index]
        image = Image.fromarray(picture.permute(1, 2, 0).numpy())
        if not self.ten:
            return self.preprocess(image)[None], self.pictures.labels[index]
        size = self.preprocess.size
        corners = (sub_crop(picture, corner, size) for corner in range(len(CORNERS)))
        views = [window(image, (left, top, right, bottom), size) for top, left, bottom, right in corners]
        views += [view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for view in views]
        inputs = [preprocess.tensor(view) for preprocess, view in zip(self.each, views, strict=True)]
        return torch.stack(inputs), self.pictures.labels[index]


@torch.no_grad()
def evaluate(net: nn.Module, pictures: Pictures, preprocess: Preprocess, ten: bool = False, precision: str = "float32",
             workers: int = 0, here: Here = ALONE, means: Tensor | None = None,
             progress: bool = False) -> dict[str, float]:
    """Top-1 and top-5 accuracy on pictures, each the mean over the classes; empty where there are none.

    ``ten``: the probabilities are averaged over the four corners and the centre, flipped and not (Krizhevsky et al.
    2012); otherwise one central view. ``means`` (10, 3, size, size): what is subtracted from each of the ten, where it
    is not the same. The processes take a part of the pictures each, and all get the same result.
    """
    if not len(pictures):
        return {}
    mine = range(here.rank, len(pictures), here.world)
    inputs = torch.utils.data.Subset(Inputs(pictures, preprocess, ten, means), mine)
    hits = torch.zeros(3, max(pictures.labels) + 1, dtype=torch.int64)           # top-1, top-5, pictures; by class
    loader = DataLoader(inputs, BATCH // 10 if ten else BATCH, num_workers=workers, worker_init_fn=wait_for_the_parent)
    with _in_eval_mode(net):
        for views, labels in tqdm(loader, "measuring", disable=not progress, leave=False, unit="batch"):
            with here.arithmetic(precision):
                scores = net(views.flatten(0, 1).to(here.device)).float().cpu()  # (N·views, classes)
            chances = scores.softmax(1).unflatten(0, views.shape[:2]).mean(1) if ten else scores
            best = chances.topk(min(5, scores.shape[1])).indices == labels[:, None]  # (N, 5)
            hits.index_add_(1, labels, torch.stack([best[:, 0], best.any(1), torch.ones_like(labels)]).long())
    top1, top5, count = here.total(hits).double()
    some = count > 0
    return {"top1": float((top1[some] / count[some]).mean()), "top5": float((top5[some] / count[some]).mean())}


@contextmanager
def _in_eval_mode(net: nn.Module) -> Iterator[None]:
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)
