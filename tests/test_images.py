"""Files to tensors and back: what a file may be, what a folder gives, and that preprocessing is undone exactly."""

import hashlib
import os
import pickle
import random
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_images import JPEG, ODD, PICTURE, PIXELS, PNG, REFUSED, SPECIAL, TIFF, WEBP, encode, write_bad, write_specials
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deconvnet import processes
from deconvnet.errors import UnreadableImage, UsageError
from deconvnet.images import (
    ENDINGS,
    PHOTOGRAPHS,
    ImageFolder,
    Photographs,
    Preprocess,
    decode_image,
    decoder,
    list_images,
    open_images,
    read_image,
    window,
)

# ---- one file ----


def test_the_corpus_is_large_enough():
    assert len(REFUSED) + len(SPECIAL) >= 40
    assert len(ODD) >= 30


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_with_its_name_and_a_reason(name, tmp_path, capfd):
    data, reason = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnreadableImage) as caught:
        read_image(tmp_path / name, name)
    assert caught.value.name == name
    assert reason in caught.value.reason
    assert str(tmp_path) not in str(caught.value), "the reason must not carry the path"
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert capfd.readouterr() == ("", ""), "the decoders must not print"


@pytest.mark.timeout(20)  # opening a FIFO that nobody writes to would wait for ever
@pytest.mark.parametrize("name", SPECIAL)
def test_what_is_no_regular_file_is_refused(name, tmp_path):
    write_specials(tmp_path)
    with pytest.raises(UnreadableImage, match=SPECIAL[name]):
        read_image(tmp_path / name)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_gives_what_is_documented(name, tmp_path, capfd):
    data, pixel, size = ODD[name]
    (tmp_path / name).write_bytes(data)
    image = read_image(tmp_path / name)
    assert image.mode == "RGB"
    assert image.size == size
    assert np.abs(np.subtract(image.getpixel((0, 0)), pixel)).max() <= (2 if name == "cmyk.jpg" else 0)
    assert Preprocess()(image).isfinite().all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [*REFUSED, *ODD])
def test_bytes_give_what_a_file_of_them_gives(name, tmp_path, capfd):
    data = REFUSED[name][0] if name in REFUSED else ODD[name][0]
    (tmp_path / name).write_bytes(data)

    def outcome(read):
        try:
            return np.asarray(read()).tobytes()
        except UnreadableImage as error:
            return str(error)
    assert outcome(lambda: decode_image(data, name)) == outcome(lambda: read_image(tmp_path / name, name))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", ["gone.jpg", "a" * 300 + ".jpg", "nul\0.jpg"])
def test_a_name_that_leads_nowhere_is_an_unreadable_image(path, tmp_path):
    with pytest.raises(UnreadableImage):
        read_image(tmp_path / path, path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path):
    (tmp_path / "x.png").write_bytes(PNG)
    (tmp_path / "x.png").chmod(0)
    with pytest.raises(UnreadableImage, match="permission denied"):
        read_image(tmp_path / "x.png")


def test_the_name_of_an_unreadable_image_is_the_path_where_none_is_given(tmp_path):
    with pytest.raises(UnreadableImage) as caught:
        read_image(tmp_path / "gone.png")
    assert caught.value.name == str(tmp_path / "gone.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, tmp_path):
    right_down = {1: PIXELS, 2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 4: PIXELS[::-1],
                  5: PIXELS.swapaxes(0, 1), 6: np.rot90(PIXELS, -1), 7: np.rot90(PIXELS, 2).swapaxes(0, 1),
                  8: np.rot90(PIXELS)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    PICTURE.save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")), right_down[orientation])


def test_the_pixel_limit_is_what_the_caller_says(tmp_path):
    (tmp_path / "x.png").write_bytes(PNG)
    assert read_image(tmp_path / "x.png", limit=64 * 48).size == (64, 48)
    with pytest.raises(UnreadableImage, match="too large: 64×48"):
        read_image(tmp_path / "x.png", limit=64 * 48 - 1)


def test_a_picture_that_is_too_large_is_never_decoded(tmp_path):
    data = REFUSED["png_9000.png"][0]
    (tmp_path / "x.png").write_bytes(data)
    code = ("import resource, sys; from deconvnet.images import read_image, UnreadableImage\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try: read_image(sys.argv[1])\nexcept UnreadableImage: pass\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)")
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "x.png"], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 9_000  # KB; decoded it is 81 MB and more


def test_16_bit_pixels_are_scaled_and_not_clipped(tmp_path):
    values = np.arange(0, 65536, 17, dtype=np.uint16).reshape(1, -1)
    Image.fromarray(values).save(tmp_path / "x.png")
    grey = np.asarray(read_image(tmp_path / "x.png"))[..., 0]
    assert np.array_equal(grey, np.rint(values / 257).astype(np.uint8))


@pytest.mark.parametrize(("form", "good"), {"jpeg": JPEG, "png": PNG, "tiff": TIFF, "webp": WEBP,
                                            "gif": encode(PICTURE, "GIF"), "bmp": encode(PICTURE, "BMP"),
                                            "ppm": encode(PICTURE, "PPM")}.items())
def test_changed_bytes_give_a_picture_or_an_unreadable_image(form, good, tmp_path, capfd):
    draw = random.Random(form)
    path = tmp_path / "x"
    outcomes = {"picture": 0, "refused": 0}
    for _ in range(200):
        data = bytearray(good)
        for _ in range(draw.choice([1, 1, 4, 30])):
            data[int(len(data) * draw.random() ** 3)] = draw.randrange(256)  # headers are at the beginning
        path.write_bytes(data[:draw.choice([len(data), len(data), draw.randrange(len(data))])])
        try:
            assert read_image(path, limit=1_000_000).mode == "RGB"
            outcomes["picture"] += 1
        except UnreadableImage as error:
            assert error.reason
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0, outcomes
    assert capfd.readouterr() == ("", "")


def test_the_error_survives_the_way_back_from_a_worker():
    error = pickle.loads(pickle.dumps(UnreadableImage("a.jpg", "damaged")))
    assert (error.name, error.reason) == ("a.jpg", "damaged")


# ---- preprocessing ----

ALL_VALUES = np.stack([np.roll(np.arange(256).reshape(16, 16), shift) for shift in (0, 5, 77)], -1).astype(np.uint8)


@pytest.mark.parametrize(("mean", "std"), [
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0, 0, 0), (1, 1, 1)),
    ((0.5, 0.5, 0.5), (1 / 255, 1 / 255, 1 / 255)),  # the paper's range, about ±128
    ((104.0 / 255, 117 / 255, 123 / 255), (1 / 255, 1 / 127, 58.395)),
])
def test_the_inverse_gives_back_every_value_of_every_channel(mean, std):
    preprocess = Preprocess(size=16, resize=16, mean=mean, std=std)
    tensor = preprocess(Image.fromarray(ALL_VALUES))
    assert tensor.shape == (3, 16, 16) and tensor.dtype == torch.float32
    assert np.array_equal(preprocess.inverse(tensor), ALL_VALUES)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3), st.lists(st.floats(1e-3, 100), min_size=3, max_size=3))
def test_the_inverse_is_exact_for_any_mean_and_std(mean, std):
    preprocess = Preprocess(16, 16, tuple(mean), tuple(std))
    assert np.array_equal(preprocess.inverse(preprocess(Image.fromarray(ALL_VALUES))), ALL_VALUES)


def test_the_inverse_of_a_resized_photograph_is_its_view():
    preprocess = Preprocess()
    photograph = Image.fromarray(Photographs(preprocess).image(3)).resize((300, 410))
    batch = torch.stack([preprocess(photograph)] * 2)
    assert np.array_equal(preprocess.inverse(batch), [np.asarray(preprocess.view(photograph))] * 2)


def test_the_tensor_is_what_torchvision_makes_of_the_view():
    from torchvision.transforms.v2 import functional as F

    preprocess = Preprocess(size=40, resize=48)
    view = preprocess.view(PICTURE)
    assert np.array_equal(np.asarray(view), PIXELS[4:44, 12:52])  # the short side is 48 already: a plain crop
    expected = F.normalize(F.to_dtype(F.to_image(view), torch.float32, scale=True), preprocess.mean, preprocess.std)
    torch.testing.assert_close(preprocess(PICTURE), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(600, 400), (400, 600), (64, 48), (500, 500), (3, 900)])
def test_a_view_is_the_centre_of_the_whole_image_resized(size):
    """The oracle resizes everything and crops; where that needs half a pixel the two may differ by a little."""
    image = PICTURE.resize(size, Image.Resampling.BICUBIC)
    scale = 64 / min(size)
    whole = image.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BICUBIC)
    left, top = round((whole.width - 56) / 2), round((whole.height - 56) / 2)
    expected = np.asarray(whole.crop((left, top, left + 56, top + 56)), dtype=float)
    assert np.abs(np.asarray(Preprocess(size=56, resize=64).view(image)) - expected).max() <= 5


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (2, 3), (1, 65_535)])
def test_extreme_shapes_become_a_view_without_a_huge_picture_between(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    view = Preprocess().view(Image.new("L", size, 77))
    assert np.array_equal(np.asarray(view), np.full((224, 224, 3), 77))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB; 256×(256·5000) would be 1.3 GB


def test_a_window_of_a_constant_step_is_antialiased():
    stripes = Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (256, 128))).convert("RGB")
    assert np.ptp(np.asarray(window(stripes, (0, 0, 256, 256), 32))[:, 4:-4]) <= 2  # not aliased black and white


@pytest.mark.parametrize("wrong", [
    {"size": 257}, {"size": 0}, {"size": 10.5}, {"resize": "a"}, {"std": (0, 1, 1)}, {"std": (1, 1)},
    {"mean": (float("nan"), 0, 0)}, {"std": (1e9, 1, 1)}, {"mean": (1e9, 1, 1)},
])
def test_senseless_preprocessing_is_refused(wrong):
    with pytest.raises(UsageError):
        Preprocess(**wrong)


def test_preprocessing_from_lists_equals_the_same_from_tuples():
    assert Preprocess(mean=[0, 0, 0], std=[1, 1, 1]) == Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


# ---- pictures decoded at a part of their size ----


def photograph(name="coffee", size=(640, 480)):
    return Photographs(Preprocess()).photograph(name).resize(size)


@pytest.mark.parametrize("enough, size", [(None, (640, 480)), (481, (640, 480)), (241, (640, 480)), (240, (320, 240)),
                                          (121, (320, 240)), (120, (160, 120)), (60, (80, 60)), (1, (80, 60))])
def test_a_jpeg_comes_at_the_smallest_size_that_is_enough(enough, size):
    content = encode(photograph(), "JPEG", quality=90)
    image = decode_image(content, "x.jpg", enough=enough)
    assert image.size == size
    if size == (640, 480):
        assert np.array_equal(np.asarray(image), np.asarray(decode_image(content, "x.jpg")))


@pytest.mark.parametrize("form, mode", [("PNG", "RGB"), ("WEBP", "RGB"), ("JPEG", "RGB"), ("JPEG", "L"),
                                        ("JPEG", "CMYK")])
def test_other_formats_come_whole_and_a_part_is_turned_as_the_whole_is(form, mode, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph().convert(mode).save(tmp_path / "x", form, exif=exif)
    whole, part = read_image(tmp_path / "x"), read_image(tmp_path / "x", enough=200)
    assert whole.size == (480, 640) and part.size == ((240, 320) if form == "JPEG" else whole.size)
    smaller = np.asarray(whole.resize(part.size, Image.Resampling.BOX), dtype=float)
    assert part.mode == "RGB" and np.abs(np.asarray(part) - smaller).mean() < 4  # upright, and of the same colours


def test_reduced_views_differ_by_what_is_said_of_them():
    plain, reduced = Preprocess(56, 64), Preprocess(56, 64, reduced=True)
    assert (plain.enough, reduced.enough) == (None, 128)
    differences = []
    for name in PHOTOGRAPHS:
        content = encode(photograph(name), "JPEG", quality=92)
        whole = np.asarray(plain.view(decode_image(content, name, enough=plain.enough)), dtype=int)
        part = decode_image(content, name, enough=reduced.enough)
        assert part.size == (320, 240)
        differences.append(np.abs(np.asarray(reduced.view(part)) - whole))
    assert 0 < np.mean(differences) < 2 and np.quantile(differences, 0.99) < 16


def test_a_folder_is_reduced_where_its_preprocessing_says_so_and_the_settings_tell(tmp_path):
    photograph().save(tmp_path / "a.jpg")
    plain, reduced = (ImageFolder(tmp_path, Preprocess(56, 64, reduced=reduced)) for reduced in (False, True))
    whole = read_image(tmp_path / "a.jpg")
    assert plain.picture(0).size == reduced.picture(0).size == (640, 480)
    assert np.array_equal(plain.image(0), np.asarray(plain.preprocess.view(whole)))
    assert not np.array_equal(plain.image(0), reduced.image(0))
    assert "reduced" not in plain.preprocess.settings() and plain.preprocess != reduced.preprocess
    assert Preprocess(**reduced.preprocess.settings()) == reduced.preprocess


# ---- folders ----


def folder(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG if path.suffix.lower() in ENDINGS else b"")
    return root


def test_a_flat_folder_has_no_classes(tmp_path):
    folder(tmp_path, "b.png", "a.JPG", "notes.txt", ".hidden.png")
    assert list_images(tmp_path) == [("a.JPG", None), ("b.png", None)]
    data = ImageFolder(tmp_path, Preprocess(8, 8))
    assert (data.files, data.labels, data.classes, data.ignored) == (["a.JPG", "b.png"], [-1, -1], [], 1)


def test_the_class_is_the_first_subfolder_however_deep(tmp_path):
    folder(tmp_path, "dog/1.png", "cat/x/y/2.jpeg", "cat-like/3.tif", "cat/1.webp", "loose.bmp", ".git/4.png",
           "dog/.5.png")
    assert list_images(tmp_path) == [
        ("cat/1.webp", "cat"), ("cat/x/y/2.jpeg", "cat"), ("cat-like/3.tif", "cat-like"), ("dog/1.png", "dog"),
        ("loose.bmp", None)]
    data = ImageFolder(tmp_path, Preprocess(8, 8))
    assert data.classes == ["cat", "cat-like", "dog"]
    assert data.labels == [0, 0, 1, 2, -1]


def test_a_class_without_images_is_no_class(tmp_path):
    folder(tmp_path, "dog/1.png", "empty/readme.txt")
    assert ImageFolder(tmp_path, Preprocess(8, 8)).classes == ["dog"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    folder(tmp_path / "data", "dog/1.png")
    folder(tmp_path / "elsewhere", "2.png")
    (tmp_path / "data/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/dog/again").symlink_to(tmp_path / "data")
    (tmp_path / "data/dog/3.png").symlink_to(tmp_path / "elsewhere/2.png")
    assert [name for name, _ in list_images(tmp_path / "data")] == ["cat/2.png", "dog/1.png", "dog/3.png"]


STRANGE = ["été.png", "e\u0301te\u0301.png", "two words.png", "new\nline.png", "<img onerror=alert(1)>.png",
           "{{7*7}}.png", "con.png", "'; drop table.png", "a" * 251 + ".png", os.fsdecode(b"\xff\xfe.png"),
           "$(reboot).png", "🐕.png"]


def test_strange_names_are_kept_as_they_are(tmp_path):
    folder(tmp_path, *STRANGE)
    data = ImageFolder(tmp_path, Preprocess(8, 8))
    assert data.files == sorted(STRANGE)
    assert all(data[i][0].shape == (3, 8, 8) for i in range(len(data)))
    assert len(data.manifest) == 64


@pytest.mark.parametrize("missing", ["gone", "notes.txt"])
def test_what_is_no_folder_is_a_usage_error_that_names_it(missing, tmp_path):
    folder(tmp_path, "notes.txt")
    with pytest.raises(UsageError, match=missing):
        list_images(tmp_path / missing)


def test_a_folder_without_images_says_what_was_looked_for(tmp_path):
    folder(tmp_path, "a.txt", "b.mp4")
    with pytest.raises(UsageError) as caught:
        ImageFolder(tmp_path, Preprocess())
    for part in (str(tmp_path), "2 other files", *ENDINGS):
        assert part in str(caught.value)


def test_an_item_is_the_input_and_the_label(tmp_path):
    folder(tmp_path, "dog/1.png")
    data = ImageFolder(tmp_path, Preprocess(40, 48))
    tensor, label = data[0]
    assert tensor.shape == (3, 40, 40) and label == 0
    assert np.array_equal(data.image(0), PIXELS[4:44, 12:52])
    assert np.array_equal(data.preprocess.inverse(tensor), data.image(0))
    with pytest.raises(IndexError):
        data[1]


@pytest.mark.timeout(60)
def test_every_bad_file_is_listed_and_named_and_harms_no_other(tmp_path):
    bad = write_bad(tmp_path)
    folder(tmp_path, "good.png", "zebra.png")
    data = ImageFolder(tmp_path, Preprocess(40, 48))
    assert sorted(data.files) == sorted([*bad, "good.png", "zebra.png"])
    for index, name in enumerate(data.files):
        if name in bad:
            with pytest.raises(UnreadableImage) as caught:
                data[index]
            assert caught.value.name == name
        else:
            assert np.array_equal(data.image(index), PIXELS[4:44, 12:52])


def test_the_manifest_changes_with_a_name_a_size_or_a_file(tmp_path):
    folder(tmp_path, "a.png", "b.png")
    before = ImageFolder(tmp_path, Preprocess()).manifest
    assert before == ImageFolder(tmp_path, Preprocess(8, 8)).manifest
    seen = {before}
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    seen.add(ImageFolder(tmp_path, Preprocess()).manifest)
    (tmp_path / "c.png").write_bytes(PNG + b"!")
    seen.add(ImageFolder(tmp_path, Preprocess()).manifest)
    (tmp_path / "c.png").unlink()
    seen.add(ImageFolder(tmp_path, Preprocess()).manifest)
    assert len(seen) == 4


@pytest.mark.parametrize("seconds, rank, seen", [(0, "0", True), (2, "0", False), (0, "1", False)])
def test_listing_that_takes_long_shows_a_bar(seconds, rank, seen, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "SLOW", seconds)
    monkeypatch.setenv("RANK", rank)
    (tmp_path / "one.png").write_bytes(PNG)
    assert len(ImageFolder(tmp_path, Preprocess()).manifest) == 64
    told = capsys.readouterr().err
    assert ("listing images" in told) is ("sizes of images" in told) is seen


def test_a_copy_of_a_folder_is_the_same_set(tmp_path):
    """Whose files have times of their own."""
    one = ImageFolder(folder(tmp_path / "one", "a.png"), Preprocess(8, 8))
    other = ImageFolder(folder(tmp_path / "other", "a.png"), Preprocess(8, 8))
    os.utime(tmp_path / "other/a.png", (0, 0))
    assert one.manifest == other.manifest and np.array_equal(one.image(0), other.image(0))


def test_a_loader_with_workers_reads_a_folder(tmp_path):
    folder(tmp_path, *(f"{n}.png" for n in range(4)))
    data = ImageFolder(tmp_path, Preprocess(8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking with threads; not ours
        (batch, labels), = torch.utils.data.DataLoader(data, batch_size=4, num_workers=1)
    assert torch.equal(batch, torch.stack([data[i][0] for i in range(4)])) and labels.tolist() == [-1] * 4


# ---- the built-in photographs ----


def test_the_photographs_are_two_thousand_distinct_views():
    data = Photographs(Preprocess())
    pictures = {hashlib.sha256(data.image(i).tobytes()).digest() for i in range(len(data))}
    assert len(data) == len(pictures) == len(set(data.files)) >= 2000
    assert len(data.classes) == 16 and set(data.labels) == set(range(16))
    assert all(file.startswith(data.classes[label] + "@") for file, label in zip(data.files, data.labels, strict=True))


def test_views_without_overlap_are_few_and_share_little():
    data = Photographs(Preprocess(), overlap=0)
    assert 400 <= len(data) <= 800
    assert len(set(data.files)) == len(data)
    where = {}
    for file in data.files:
        scaled, y, x = file.split("+")
        where.setdefault(scaled, []).append((int(y), int(x)))
    square = [places for scaled, places in where.items() if scaled.startswith("astronaut")]
    assert [len(places) for places in square] == [1, 4, 9, 16]  # 512×512: the scales fit whole views, none share
    assert all(y % 224 == 0 and x % 224 == 0 for places in square for y, x in places)


@pytest.mark.parametrize(("overlap", "digest"), [(0.65, "ae05930c31cf53cc"), (0, "4bb6e1bb1c47f0dc")])
def test_the_names_of_the_views_last(overlap, digest):
    """Scans name their images by them: a change here makes every scan of the photographs that exists unreadable."""
    names = "\n".join(Photographs(Preprocess(), overlap).files)
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == digest


def test_a_view_is_where_its_name_says():
    data = Photographs(Preprocess())
    name = next(file for file in data.files if file.startswith("hubble@1.03+") and "+224" in file)
    scale, y, x = 4 * 224 / 872, *map(int, name.split("+")[1:])
    import skimage
    photograph = Image.open(Path(skimage.__file__).parent / "data/hubble_deep_field.jpg")
    whole = photograph.resize((round(1000 * scale), 896), Image.Resampling.BICUBIC)
    expected = np.asarray(whole.crop((x, y, x + 224, y + 224)), dtype=float)
    difference = np.abs(data.image(data.files.index(name)) - expected)
    assert difference.mean() < 1 and np.quantile(difference, 0.999) < 20


def test_names_and_manifest_of_the_photographs_do_not_depend_on_the_preprocessing():
    one, other = Photographs(Preprocess()), Photographs(Preprocess(227, 256))
    assert one.files == other.files and one.manifest == other.manifest
    assert one.manifest != Photographs(Preprocess(), overlap=0).manifest
    assert other[0][0].shape == (3, 227, 227)
    assert np.array_equal(other.preprocess.inverse(other[0][0]), other.image(0))


def test_the_photographs_take_little_memory():
    data = Photographs(Preprocess(), overlap=0)
    for index in range(0, len(data), 3):
        data.image(index)
    assert len(data._pictures) == 16
    assert sum(4 * picture.width * picture.height for picture in data._pictures.values()) < 40e6


def test_the_photographs_are_read_without_importing_scikit_image_or_the_network():
    code = ("import sys, socket\nfrom deconvnet.images import *\n"
            "socket.socket = None\nPhotographs(Preprocess()).image(0)\nassert 'skimage' not in sys.modules")
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("overlap", [-0.1, 1, 2, float("nan")])
def test_a_senseless_overlap_is_refused(overlap):
    with pytest.raises(UsageError):
        Photographs(Preprocess(), overlap=overlap)


def test_open_images_knows_the_photographs_and_folders(tmp_path):
    folder(tmp_path, "a.png")
    assert isinstance(open_images("builtin:photographs", Preprocess()), Photographs)
    apart = open_images("builtin:photographs-apart", Preprocess())
    assert apart.files == Photographs(Preprocess(), overlap=0).files
    assert open_images(tmp_path, Preprocess()).files == open_images(str(tmp_path), Preprocess()).files == ["a.png"]
    with pytest.raises(UsageError, match="builtin:photographs"):
        open_images("builtin:photos", Preprocess())


def test_the_decoder_is_named_with_its_version():
    assert decoder().startswith("Pillow ") and "EXIF" in decoder()
