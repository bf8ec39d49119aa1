"""Training by a recipe."""

from pathlib import Path

from ..files import writable_folder


def run_train(config: str, out: str | None = None, data: str | None = None, images: str | None = None,
              seed: int | None = None, workers: int | None = None, device: str = "auto",
              tensorboard: bool = False) -> None:
    """Trains a network by a recipe. The same command again goes on from where the last one stopped.

    On several GPUs or machines: torchrun --nproc-per-node 4 --no-python deconvnet train --config FILE. The processes
    share each batch; their number changes nothing but rounding.

    Args:
        config: a YAML file such as those in configs/train; unknown keys are errors.
        out: folder for checkpoints, log, curves, snapshots and weights. Default: runs/ and the configuration's name.
        data: a second YAML file whose keys go before those of config, such as those in configs/data.
        images: the folder of images, with one subfolder for each class, if not the one that the files name.
        seed: of the split, the first weights and the order of the images, if not the configuration's.
        workers: processes that cut views, if not as many as the configuration says.
        device: cpu, cuda, or auto: cuda where there is one.
        tensorboard: write files for TensorBoard too (pip install 'deconvnet[tensorboard]').
    """
    from ..config import load, read
    from ..training import Recipe, train

    words = {"images": images, "seed": seed, "workers": workers}
    changes = {**(read(data) if data else {}), **{key: value for key, value in words.items() if value is not None}}
    recipe = load(config, Recipe, changes)
    folder = writable_folder(out or f"runs/{Path(config).stem}")
    card = train(recipe, folder, device=device, tensorboard=tensorboard)
    if not card:  # another process than the first
        return
    for key, views in (("held_out", "central view"), ("held_out_ten_views", "ten views")):
        if "top1" in card.get(key, {}):
            print(f"held out, {views}: {card[key]['top1']:.1%} top-1, {card[key]['top5']:.1%} top-5, mean of classes")
    weights = folder / "weights.safetensors"
    print(f"Now: deconvnet scan --model {recipe.network} --weights {weights} --images DIR --out FILE")
