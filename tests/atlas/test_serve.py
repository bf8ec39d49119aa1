"""An atlas that is served: who is let in, what is given out, and what is said of a picture of one's own."""

import http.client
import importlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
import pytest
import tiny
import torch
from bad_images import ODD, PICTURE, REFUSED, encode
from PIL import Image
from torch import nn

import deconvnet
from deconvnet.atlas import own, serve
from deconvnet.cli import main
from deconvnet.colours import normalise
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.images import Photographs, decode_image
from deconvnet.patches import cut

TOKEN = "a-token-that-is-only-known-here_"
SECRET = b"what nobody may see"
OUTSIDE = "a folder of the user"


# ---- a server in this process ----


@dataclass
class Served:
    """A running server, and how to ask it."""

    folder: Path
    port: int
    said: list[str]

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    def raw(self, path, method="GET", body=None, host=None, headers=()):
        """(status, headers, body) of exactly this path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in [("Host", self.host if host is None else host), *headers]:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        result = answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        connection.close()
        return result

    def get(self, words=""):
        """The same of a page of the atlas."""
        return self.raw(f"/{TOKEN}/{words}")

    def look(self, picture, headers=(), **asked):
        """The status of the answer for a picture, and what it says."""
        status, _, said = self.raw(f"/{TOKEN}/own/look?{urlencode(asked)}", "POST", picture, headers=headers)
        return status, json.loads(said)


@contextmanager
def serving(folder, looking):
    said = []
    with serve._listening(0) as listener:
        port = listener.getsockname()[1]
        server = serve._server(serve.application(folder, looking, TOKEN, port, said.append))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Served(folder, port, said)
        finally:
            looking.rest(10)
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def place(small_atlas, tmp_path_factory):
    """A copy of the atlas in a folder of the user's, with a secret beside it and links that lead there."""
    above = tmp_path_factory.mktemp("serve") / OUTSIDE
    folder = Path(shutil.copytree(small_atlas.folder, above / "made"))
    for name in ("secret.html", "secret.webp", "made2.html"):
        (above / name).write_bytes(SECRET)
    (above / "beside").mkdir()
    (above / "beside" / "index.html").write_bytes(SECRET)
    (folder / "link.html").symlink_to(above / "secret.html")
    (folder / "absolute.html").symlink_to((above / "secret.html").resolve())
    (folder / "linked").symlink_to(above / "beside")
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    (folder / "conv1" / "index.html.part").write_bytes(SECRET)
    (folder / ".hidden.html").write_bytes(SECRET)
    (folder / "notes.txt").write_bytes(SECRET)
    (folder / "deep").mkdir()
    (folder / "deep" / "index.html").symlink_to(above / "secret.html")
    os.mkfifo(folder / "pipe.html")
    return folder


@pytest.fixture(scope="module")
def served(small_atlas, place):
    with serving(place, serve.Looking(small_atlas.net, serve.open_atlas(place))) as running:
        yield running


def photograph(size=(64, 48)):
    views = Photographs(deconvnet.images.Preprocess(64), overlap=0)
    return views.view(0).resize(size)


JPEG = encode(photograph(), "JPEG", quality=95)


# ---- what is given out, and to whom ----


def test_the_whole_atlas_is_served_under_the_token(served, small_atlas):
    for name, content in tiny.content(small_atlas.folder).items():
        status, headers, body = served.get(quote(name))
        if name == "static/atlas.js":  # and then the way to the page of one's own
            assert body.startswith(content) and body.endswith(resources("deconvnet.atlas").joinpath(
                "static", "served.js").read_bytes())
            body = content
        assert (status, body) == (200, content), name
        assert headers["content-type"].partition(";")[0] in ("text/html", "text/css", "text/javascript", "image/webp",
                                                             "application/json")
    assert served.get()[2] == served.get("index.html")[2] == (small_atlas.folder / "index.html").read_bytes()
    assert served.get("conv2/3/")[2] == (small_atlas.folder / "conv2" / "3" / "index.html").read_bytes()
    assert served.raw(f"/{TOKEN}")[1]["location"] == f"/{TOKEN}/"
    assert served.get("conv2/3")[0] == 307 and served.get("conv2/3")[1]["location"] == "3/"
    assert served.raw(f"/{TOKEN}/index.html", "HEAD")[0] == 200


def test_every_answer_is_kept_to_itself(served):
    for answer in (served.get("own"), served.get("nowhere"), served.raw("/"), served.raw("/", host="evil.example"),
                   served.raw(f"/{TOKEN}/own", "PUT"), served.raw(f"/{TOKEN}"), served.get("static/own.js"),
                   served.raw(f"/{TOKEN}/own/look", "POST", JPEG)):
        headers = answer[1]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store" and headers["cross-origin-resource-policy"] == "same-origin"
        assert not {"server", "access-control-allow-origin", "set-cookie"} & set(headers)


@pytest.mark.parametrize("path", [
    "/", "/index.html", "/own", "/own/look?layer=conv1", "/atlas.json", "*", "/static/own.js", "//", f"/{TOKEN[:-1]}/",
    f"/{TOKEN}x/", f"/{TOKEN.upper()}/", f"/x/{TOKEN}/", f"//{TOKEN}/", f"/./{TOKEN}/", f"/%2e/{TOKEN}/", f"/?{TOKEN}",
    f"/{TOKEN}%00/", f"/%20{TOKEN}/", f"/{TOKEN};/", f"/{TOKEN}%c3%28/", "/%ff/", f"http://127.0.0.1/{TOKEN}/",
    "/favicon.ico/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_the_token_there_is_nothing(served, path, method):
    status, _, body = served.raw(path, method, JPEG if method == "POST" else None)
    assert (status, body) == (404, b"")


def test_a_browser_that_asks_for_an_icon_gets_none_and_no_error(served):
    assert served.raw("/favicon.ico")[::2] == (204, b"")
    assert served.raw("/favicon.ico", host="evil.example")[0] == 421


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:{port}", "127.0.0.1", "localhost", "127.0.0.1:1", "127.0.0.1:{port}.evil.example",
    "127.0.0.1.evil.example:{port}", "localhost.:{port}", "[::1]:{port}", "0.0.0.0:{port}", "127.1:{port}", "",
    "evil.example@127.0.0.1:{port}", "2130706433:{port}", "127.0.0.1:{port},evil.example"])
def test_by_another_name_of_the_host_there_is_nothing(served, host):
    """A page of evil.example, whose name is made to mean 127.0.0.1, sends its own name."""
    for path, method in ((f"/{TOKEN}/", "GET"), (f"/{TOKEN}/own/look?layer=conv1", "POST"), ("/", "GET")):
        assert served.raw(path, method, JPEG, host.format(port=served.port))[::2] == (421, b"")


def test_the_two_names_of_this_computer_are_taken(served):
    for host in (served.host, f"localhost:{served.port}", f"LocalHost:{served.port}"):
        assert served.raw(f"/{TOKEN}/", host=host)[0] == 200


@pytest.mark.parametrize("headers", [
    [("Origin", "http://evil.example")], [("Origin", "null")], [("Origin", "http://127.0.0.1:1")],
    [("Origin", "https://{host}")], [("Origin", "http://{host}"), ("Origin", "http://evil.example")],
    [("Origin", "http://localhost:{port}")], [("Sec-Fetch-Site", "cross-site")], [("Sec-Fetch-Site", "same-site")],
    [("Sec-Fetch-Site", "none")], [("Origin", "http://{host}"), ("Sec-Fetch-Site", "cross-site")]])
def test_a_page_from_elsewhere_cannot_send_a_picture(served, headers):
    sent = [(name, value.format(host=served.host, port=served.port)) for name, value in headers]
    assert served.raw(f"/{TOKEN}/own/look?layer=conv1", "POST", JPEG, headers=sent)[::2] == (403, b"")


def test_its_own_page_can_send_one(served):
    sent = [("Origin", f"http://{served.host}"), ("Sec-Fetch-Site", "same-origin")]
    assert served.look(JPEG, sent, layer="conv1")[0] == 200


TRICKS = [
    "../secret.html", "%2e%2e/secret.html", "%2e%2e%2fsecret.html", "..%2fsecret.html", "%2E%2E%2Fsecret.html",
    ".%2e/secret.html", "conv1/../../secret.html", "conv1/%2e%2e/%2e%2e/secret.html", "conv1/..%2f..%2fsecret.html",
    "%252e%252e%252fsecret.html", "..%252fsecret.html", "..\\secret.html", "..%5csecret.html", "%2e%2e%5csecret.html",
    "conv1\\..\\..\\secret.html", "../secret.webp", "....//secret.html", "..;/secret.html", "../made2.html",
    "%00../secret.html", "index.html%00", "index.html%00.webp", "../secret.html%00.html", "..%c0%afsecret.html",
    "..%ef%bc%8fsecret.html", "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "{above}/secret.html",
    "/{above}/secret.html", "%2f{above}%2fsecret.html", "file:///{above}/secret.html", "C:/secret.html",
    "c%3asecret.html", "link.html", "absolute.html", "linked", "linked/", "linked/index.html", "up/secret.html",
    "up/made2.html", "up", "up/", "loop",
    "loop/x.html", "deep/", "deep/index.html", ".hidden.html", "notes.txt", "conv1/index.html.part", "pipe.html",
    "conv1/./index.html", "conv1//index.html", "./index.html", "index.html/", "index.html/x", "a" * 300,
    "a/" * 1500, "%0a", "index.html%0a", "static/../../secret.html", "static/%2e%2e/%2e%2e/secret.html",
    "static/own.css%00", "own/x/../../secret.html", "own/..%2f..%2fsecret.html/whole.webp", "own/x/whole.webp",
    "static/own.html", "~", "%ff%fe", "CON", "index.html::$DATA", "?/../secret.html".replace("?", "%3f")]


@pytest.mark.timeout(30)  # opening a FIFO that nobody writes to would wait for ever
@pytest.mark.parametrize("path", TRICKS)
def test_a_path_that_leads_outside_leads_nowhere(served, path):
    assert served.get(path.format(above=str(served.folder.parent).replace(" ", "%20")))[::2] == (404, b"")
    assert served.said == []


def test_there_are_enough_tricks():
    assert len(set(TRICKS)) >= 60


# ---- too much ----


def test_a_large_body_that_is_announced_is_cut_off_before_it_is_sent(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as wire:
        wire.sendall(f"POST /{TOKEN}/own/look?layer=conv1 HTTP/1.1\r\nHost: {served.host}\r\n"
                     "Content-Length: 1000000000\r\n\r\n".encode())
        answer = read_all(wire)
    assert answer.startswith(b"HTTP/1.1 413") and b"connection: close" in answer and b"too large" in answer


@pytest.mark.parametrize("path, status", [(f"/{TOKEN}/own/look?layer=conv1", 413), ("/own/look", 404),
                                          (f"/{TOKEN}/nowhere", 405), (f"/{TOKEN}/own/look?layer=no", 422)])
def test_a_large_body_that_is_not_announced_is_cut_off_as_it_comes(served, path, status):
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as wire:
        wire.sendall(f"POST {path} HTTP/1.1\r\nHost: {served.host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        try:
            while sent < 1000:
                wire.sendall(chunk)
                sent += 1
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 40, "more than twice the limit was taken"
        assert read_all(wire).startswith(f"HTTP/1.1 {status}".encode())
    assert served.get()[0] == 200


def read_all(wire):
    parts = []
    try:
        while part := wire.recv(65536):
            parts.append(part)
    except ConnectionResetError:  # after what was said before
        pass
    return b"".join(parts)


def test_a_body_that_is_just_not_too_large_is_read(served, monkeypatch):
    monkeypatch.setattr(serve, "LIMIT", len(JPEG))
    assert served.look(JPEG, layer="conv1")[0] == 200
    assert served.look(JPEG + b"x", layer="conv1")[0] == 413


def test_a_body_that_does_not_come_is_not_waited_for(served, monkeypatch):
    monkeypatch.setattr(serve, "SLOWEST", 0.2)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as wire:
        wire.sendall(f"POST /{TOKEN}/own/look?layer=conv1 HTTP/1.1\r\nHost: {served.host}\r\n"
                     "Content-Length: 1000\r\n\r\n12".encode())
        assert read_all(wire).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_or_a_bomb_is_refused_with_a_sentence(served, name):
    data, reason = REFUSED[name]
    status, said = served.look(data, layer="conv2", unit=1)
    assert status == 422 and reason in said["error"]
    assert said["error"].startswith("This picture cannot be read: ") and said["error"].endswith(".")
    assert OUTSIDE not in said["error"] and "/" not in said["error"] and "0x" not in said["error"]


# ---- what is said of a picture ----


def answered(served, said, name):
    status, headers, body = served.get(said[name] if isinstance(said, dict) else said)
    assert status == 200 and headers["content-type"] == "image/webp"
    return np.asarray(Image.open(io.BytesIO(body), formats=["WEBP"]).convert("RGB"))


def slow_peaks(values):
    """The peaks of a map, place by place."""
    found = []
    order = sorted(np.ndindex(*values.shape), key=lambda at: (-values[at], at))
    for y, x in order:
        around = values[max(y - 1, 0):y + 2, max(x - 1, 0):x + 2]
        apart = all(abs(y - b) > 1 or abs(x - a) > 1 for b, a in found)
        if values[y, x] > 0 and values[y, x] == around.max() and apart:
            found.append((y, x))
    return found[:9]


@pytest.mark.parametrize("layer", tiny.LAYERS)
@pytest.mark.parametrize("unit", [1, tiny.ALWAYS, 5])
def test_the_peaks_of_a_unit_are_projected(served, small_atlas, layer, unit):
    net = small_atlas.net
    status, said = served.look(JPEG, layer=layer, unit=unit)
    view = net.preprocess.view(decode_image(JPEG, "x"))
    tape = deconvnet.record(net, net.preprocess.tensor(view)[None])
    expected = slow_peaks(tape.activations(layer)[0, unit].numpy())
    assert status == 200 and (said["layer"], said["unit"]) == (layer, unit)
    assert [tuple(tile["position"]) for tile in said["tiles"]] == expected
    assert np.array_equal(answered(served, said, "whole").shape[:2], said["size"])
    if not expected:
        return
    p = deconvnet.project(tape, layer, [(0, unit, y, x) for y, x in expected])
    shown = normalise(p.pixels.numpy())
    strongest = float(small_atlas.top[layer].maximum[unit])
    for tile, value, origin, colours in zip(said["tiles"], p.values.tolist(), p.origin.tolist(), shown, strict=True):
        top, left, bottom, right = tile["box"]
        assert tile["unit"] == unit and tile["value"] == pytest.approx(value, rel=1e-5)
        assert [top, left] == origin and (bottom - top, right - left) == colours.shape[:2]
        assert tile["strongest"] == pytest.approx(strongest, rel=1e-3)
        assert np.array_equal(answered(served, tile, "reconstruction"), colours)  # small ones are kept without loss
        assert np.array_equal(answered(served, tile, "patch"), cut(np.asarray(view), origin, colours.shape[:2]))
        assert served.get(tile["page"])[0] == 200


def test_some_unit_has_several_peaks(served):
    assert 9 in {len(served.look(JPEG, layer="conv1", unit=unit)[1]["tiles"]) for unit in range(6)}


def test_without_a_unit_the_nine_that_fire_most_are_shown(served, small_atlas):
    net = small_atlas.net
    _, said = served.look(JPEG, layer="conv2")
    maps = deconvnet.record(net, net.preprocess(decode_image(JPEG, "x"))[None]).activations("conv2")[0]
    order = sorted(range(len(maps)), key=lambda unit: (-float(maps[unit].max()), unit))[:9]
    assert said["unit"] is None and [tile["unit"] for tile in said["tiles"]] == order
    for tile in said["tiles"]:
        y, x = tile["position"]
        assert tile["value"] == pytest.approx(float(maps[tile["unit"]].max())) == pytest.approx(
            float(maps[tile["unit"], y, x]))
        assert tile["page"] == f"conv2/{tile['unit']}/index.html"


def test_different_units_have_scales_of_their_own(served):
    for tile in served.look(JPEG, layer="conv3")[1]["tiles"]:
        contrast = answered(served, tile, "reconstruction").astype(int) - 128
        assert np.abs(contrast).max() >= 126


def test_peaks_of_an_even_map_are_places_apart():
    found = own.peaks(torch.ones(6, 6))
    assert found == [(0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4), (4, 0), (4, 2), (4, 4)]
    assert own.peaks(torch.zeros(6, 6)) == [] and own.strongest_units(torch.zeros(3, 2, 2)) == []
    assert own.strongest_units(torch.ones(2, 2, 2)) == [(0, 0, 0), (1, 0, 0)]


def test_a_unit_that_does_not_fire_is_an_empty_answer(served):
    status, said = served.look(JPEG, layer="conv2", unit=tiny.DEAD)
    assert (status, said["tiles"]) == (200, [])


@pytest.mark.parametrize("name", ODD)
def test_an_odd_picture_is_looked_at(served, small_atlas, name):
    status, said = served.look(ODD[name][0], layer="conv1")
    assert status == 200
    view = np.asarray(small_atlas.net.preprocess.view(decode_image(ODD[name][0], "x")))
    assert np.abs(answered(served, said, "whole").astype(int) - view).mean() < 4


def test_a_picture_lies_as_its_exif_says(served):
    upright, lying = PICTURE, PICTURE.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    one, other = (served.look(encode(image, "PNG", **words), layer="conv2", unit=tiny.ALWAYS)[1]["tiles"]
                  for image, words in ((upright, {}), (lying, {"exif": exif})))
    kept = [{key: tile[key] for key in ("value", "position", "box")} for tile in one]
    assert kept and kept == [{key: tile[key] for key in ("value", "position", "box")} for tile in other]
    assert lying.size != PICTURE.size


@pytest.mark.parametrize("asked, says", [
    ({"layer": "conv9"}, "no such layer"), ({}, "no such layer"), ({"layer": "../conv1"}, "no such layer"),
    ({"layer": "conv1\0"}, "no such layer"), ({"layer": "<b>"}, "no such layer"), ({"layer": "relu1"}, "no such layer"),
    ({"layer": "conv1", "unit": 6}, "units 0 to 5"), ({"layer": "conv1", "unit": -1}, "units 0 to 5"),
    ({"layer": "conv1", "unit": "1.0"}, "units 0 to 5"), ({"layer": "conv1", "unit": "x"}, "units 0 to 5"),
    ({"layer": "conv1", "unit": "²"}, "units 0 to 5"), ({"layer": "conv1", "unit": "9" * 5000}, "units 0 to 5")])
def test_a_layer_or_unit_that_is_not_there_is_said_to_be_so(served, asked, says):
    status, said = served.look(JPEG, **asked)
    assert status == 422 and says in said["error"] and "<b>" not in said["error"]


def test_pictures_are_kept_for_a_few_answers_and_minutes(served, monkeypatch):
    answers = [served.look(JPEG, layer="conv1")[1]["whole"] for _ in range(serve.ANSWERS + 1)]
    assert [served.get(address)[0] for address in answers] == [404] + [200] * serve.ANSWERS
    later = time.monotonic() + serve.KEPT
    monkeypatch.setattr(serve, "time", SimpleNamespace(monotonic=lambda: later + 1))
    assert {served.get(address)[0] for address in answers} == {404}


def test_pictures_are_forgotten_though_nobody_asks(small_atlas, place, monkeypatch):
    monkeypatch.setattr(serve, "KEPT", -0.9)  # the timer waits one second more
    dropped = threading.Event()
    forget = serve._Kept.forget
    monkeypatch.setattr(serve._Kept, "forget", lambda kept: (forget(kept), not kept.answers and dropped.set()))
    with serving(place, serve.Looking(small_atlas.net, serve.open_atlas(place))) as running:
        assert running.look(JPEG, layer="conv1")[0] == 200
        assert dropped.wait(10)


def test_nothing_of_a_picture_is_written_anywhere(served, monkeypatch):
    before = tiny.content(served.folder.parent / "beside"), sorted(served.folder.rglob("*"))
    opened = []

    def audit(event, arguments):
        if watching and event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            opened.append(arguments[0])
    watching = True
    sys.addaudithook(audit)
    assert served.look(JPEG, layer="conv3")[0] == 200
    assert served.look(encode(PICTURE, "TIFF", compression="tiff_lzw"), layer="conv3")[0] == 200
    watching = False
    assert opened == [] and before == (tiny.content(served.folder.parent / "beside"), sorted(served.folder.rglob("*")))


# ---- several at once, and what goes wrong ----


class Held(serve.Looking):
    """Looks at a picture only when it is let go."""

    def __init__(self, *given):
        super().__init__(*given)
        self.begun, self.go, self.at_once, self.most = threading.Event(), threading.Event(), 0, 0

    def check(self):
        super().check()
        self.begun.set()
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.go.wait(20)
        self.at_once -= 1


def test_pictures_wait_for_each_other_and_pages_do_not_wait(small_atlas, place):
    looking = Held(small_atlas.net, serve.open_atlas(place))
    with serving(place, looking) as running:
        answers = []
        askers = [threading.Thread(target=lambda: answers.append(running.look(JPEG, layer="conv1")))
                  for _ in range(serve.WAITING + 2)]
        for asker in askers:
            asker.start()
        assert looking.begun.wait(10)
        while len(answers) < 2:  # those that are turned away
            time.sleep(0.01)
        assert running.get()[0] == running.get("own")[0] == 200
        assert len(answers) == 2 and {status for status, _ in answers} == {503} and "moment" in answers[0][1]["error"]
        looking.go.set()
        for asker in askers:
            asker.join(20)
        assert [status for status, _ in answers].count(200) == serve.WAITING and looking.most == 1
        assert running.look(JPEG, layer="conv1")[0] == 200


def test_a_sender_who_goes_away_leaves_room(served):
    for _ in range(serve.WAITING + 1):
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as wire:
            wire.sendall(f"POST /{TOKEN}/own/look?layer=conv1 HTTP/1.1\r\nHost: {served.host}\r\n"
                         "Content-Length: 1000\r\n\r\n12".encode())
            time.sleep(0.05)
    time.sleep(0.2)
    assert served.look(JPEG, layer="conv1")[0] == 200
    assert served.said == []


def test_a_network_that_fails_is_a_sentence_without_a_path(small_atlas, place):
    class Broken(tiny.Tiny):
        def forward(self, images):
            raise RuntimeError(f"no memory for {place}")
    with serving(place, serve.Looking(Broken(), serve.open_atlas(place))) as running:
        status, said = running.look(JPEG, layer="conv1")
    assert status == 500 and OUTSIDE not in said["error"] and "terminal" in said["error"]
    assert "no memory" in running.said[0] and "Traceback" not in running.said[0]


def test_whatever_else_fails_has_no_words(small_atlas, place, monkeypatch):
    monkeypatch.setattr(serve._Pages, "_inside", lambda *_: 1 / 0)
    with serving(place, serve.Looking(small_atlas.net, serve.open_atlas(place))) as running:
        assert running.get("index.html")[::2] == (500, b"")
    assert "ZeroDivisionError" in running.said[0]


def test_an_atlas_that_is_deleted_meanwhile_is_not_found(small_atlas, tmp_path):
    folder = Path(shutil.copytree(small_atlas.folder, tmp_path / "made"))
    with serving(folder, serve.Looking(small_atlas.net, serve.open_atlas(folder))) as running:
        shutil.rmtree(folder)
        assert running.get()[::2] == running.get("conv1/1/index.html")[::2] == (404, b"")
        assert running.get("own")[0] == 200 and running.look(JPEG, layer="conv1")[0] == 200
        assert running.said == []


def test_layers_of_any_name_are_served(tmp_path, small_atlas):
    names = ("<b>&\"' {{7*7}}", "a/b\\..%2e%2e?ü\u2028", "." * 3 + "x" * 200)

    class Odd(nn.Sequential):
        def __init__(self):
            net = tiny.Tiny()
            found = dict(zip(tiny.LAYERS, names, strict=True))
            super().__init__(OrderedDict((found.get(name, name).replace(".", "\u2024"), module)
                                         for name, module in net.named_children()))
            self.preprocess = net.preprocess
            self.eval()
    net = Odd()
    layers = [name.replace(".", "\u2024") for name in names]
    top = tiny.scan(net, small_atlas.images, layers)
    folder = tiny.make(tmp_path / "made", net, top, small_atlas.images, layers, {})
    site = serve.open_atlas(folder)
    with serving(folder, serve.Looking(net, site)) as running:
        text = running.get("own")[2].decode()
        assert "<b>&" not in text and "{{7*7}}" in text
        for layer in site.layers:
            status, said = running.look(JPEG, layer=layer["folder"])
            assert status == 200 and said["layer"] == layer["name"] and said["tiles"]
            assert running.get(said["tiles"][0]["page"])[0] == 200


@pytest.mark.parametrize("change", [
    lambda about: about.pop("folders"), lambda about: about.update(folders={"conv1": "../made/conv1"}),
    lambda about: about.update(folders=["conv1"]), lambda about: about.update(provenance="x"),
    lambda about: about.pop("provenance")])
def test_an_atlas_that_was_tampered_with_is_refused(small_atlas, tmp_path, change):
    folder = Path(shutil.copytree(small_atlas.folder, tmp_path / "made"))
    about = json.loads((folder / "atlas.json").read_text())
    change(about)
    (folder / "atlas.json").write_text(json.dumps(about))
    with pytest.raises(DeconvnetError, match=r"atlas\.json"):
        serve.open_atlas(folder)


def test_a_folder_without_an_atlas_and_one_without_a_network_say_so(small_atlas, tmp_path, capsys):
    with pytest.raises(UsageError, match="deconvnet atlas FILE"):
        serve.open_atlas(tmp_path / "nowhere")
    assert main(["serve", str(small_atlas.folder)]) == 2
    assert "add --model" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["uvicorn", "starlette"])
def test_without_the_packages_it_says_what_to_install(package, monkeypatch, capsys, small_atlas):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "deconvnet.atlas.serve")
    monkeypatch.delattr(importlib.import_module("deconvnet.atlas"), "serve")
    assert main(["serve", str(small_atlas.folder)]) == 2
    assert "pip install 'deconvnet[serve]'" in capsys.readouterr().err


def test_a_port_that_is_taken():
    with serve._listening(0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageError, match="choose another with --port"), serve._listening(port):
            pass
    for none in (-1, 70_000):
        with pytest.raises(UsageError, match="choose another"), serve._listening(none):
            pass
    with serve._listening(None) as first, serve._listening(None) as second:
        assert first.getsockname()[0] == second.getsockname()[0] == "127.0.0.1"
        assert first.getsockname()[1] < second.getsockname()[1] or second.getsockname()[1] >= serve.PORT


# ---- the command ----


SLOW = f"""
import sys, time
sys.path.insert(0, {str(Path(tiny.__file__).parent)!r})
from tiny import Tiny

class Slow(Tiny):
    def forward(self, images):
        time.sleep(120)
"""


@contextmanager
def command(folder, model, *words):
    """The command in a process of its own, and the address that it prints."""
    (folder.parent / "slow.py").write_text(SLOW)
    running = subprocess.Popen(
        [sys.executable, "-c", "import sys; from deconvnet.cli import main; sys.exit(main())", "serve", str(folder),
         "--model", model, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        lines = [running.stdout.readline() for _ in range(5)]
        yield running, urlsplit(lines[1].strip()), "".join(lines)
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def ask(address, path, method="GET", body=None, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=20)
    connection.request(method, address.path + path, body, {"Host": host} if host else {})
    answer = connection.getresponse()
    result = answer.status, answer.read()
    connection.close()
    return result


def interrupt(running):
    """What the command says after Ctrl-C, its exit code, and the seconds until it said it."""
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    last = running.stdout.readline()
    seconds = time.monotonic() - began
    return last + running.stdout.read(), running.wait(30), seconds


@pytest.fixture
def alone(small_atlas, tmp_path):
    return Path(shutil.copytree(small_atlas.folder, tmp_path / "made"))


def test_the_command_serves_until_ctrl_c(alone):
    before = tiny.content(alone)
    with command(alone, f"{tiny.__file__}:Tiny", "--port", "0") as (running, address, said):
        assert address.hostname == "127.0.0.1" and len(address.path) > 30 and "Ctrl-C" in said
        assert said.splitlines()[3].strip() == f"{address.geturl()}own"
        assert ask(address, "")[0] == ask(address, "conv1/1/")[0] == ask(address, "own")[0] == 200
        assert ask(address._replace(path="/"), "") == (404, b"")
        assert ask(address, "", host=f"evil.example:{address.port}") == (421, b"")
        assert ask(address, "own/look?layer=conv2&unit=2", "POST", JPEG)[0] == 200
        with pytest.raises(OSError), socket.create_connection(("127.0.0.2", address.port), timeout=2):
            pass  # another address of the same computer
        second = subprocess.run(
            [sys.executable, "-c", "from deconvnet.cli import main; raise SystemExit(main())", "serve", str(alone),
             "--model", f"{tiny.__file__}:Tiny", "--port", str(address.port)],
            capture_output=True, text=True, check=False)
        assert second.returncode == 2 and "choose another with --port" in second.stderr
        said, code, seconds = interrupt(running)
    assert (said, code) == ("deconvnet: Closed.\n", 130)
    assert seconds < 2
    assert tiny.content(alone) == before


def test_ctrl_c_does_not_wait_for_a_network(alone):
    with command(alone, "slow.py:Slow", "--port", "0") as (running, address, _):
        connections = [http.client.HTTPConnection("127.0.0.1", address.port, timeout=20) for _ in range(2)]
        for connection in connections:
            connection.request("POST", f"{address.path}own/look?layer=conv2", JPEG)
        time.sleep(1)
        said, code, seconds = interrupt(running)
        for connection in connections:
            connection.close()
    assert (said, code) == ("Closed.\n", 130)
    assert seconds < 2 + serve.REST
