"""An atlas served to this computer alone, and a page on which a picture of one's own is looked at.

Who may ask is decided in ``Gate``, before anything else: whoever knows the token in the address, at this address and
from its own pages. Nothing that is sent here is written to a disk or to a log, and no answer tells a path.
"""

import asyncio
import os
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files as resources
from pathlib import Path
from threading import Event, Lock
from typing import Any
from urllib.parse import quote

from ..errors import DeconvnetError, UsageError
from ..images import decode_image
from ..network import Network
from .own import Seen, Tile, look
from .pages import Site, environment, load
from .places import folders, link

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, RedirectResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as missing:
    raise UsageError("deconvnet serve needs the packages starlette and uvicorn: pip install 'deconvnet[serve]'"
                     ) from missing

PORT = 8765
NEAR = 20             # ports from there on that are tried where none is asked for
LIMIT = 20_000_000    # bytes of a picture
SLOWEST = 60.0        # seconds in which a picture must have arrived
WAITING = 4           # pictures that are looked at or wait for it; more are turned away
ANSWERS = 8           # whose pictures are kept in memory
KEPT = 300.0          # seconds for which they are kept at most
REST = 1.0            # seconds that a picture that is being looked at has to come to an end when the server is closed

OWN = ("own.css", "own.js")  # what the page of one's own has of the package's, not of the atlas'
KINDS = {  # of files; no other is given out
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".json": "application/json", ".webp": "image/webp", ".png": "image/png",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src "
                               "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

Say = Callable[[str], None]


# ---- the server ----


def open_atlas(folder: Path) -> Site:
    """The atlas in a folder. Raises UsageError where there is none, DeconvnetError where it is damaged."""
    if not (folder / "atlas.json").is_file():
        raise UsageError(f"{folder} holds no atlas. To make one: deconvnet atlas FILE --out {folder}")
    try:
        site = load(folder)
        if site.about["folders"] == folders(list(site.about["folders"])) and isinstance(site.about["provenance"], dict):
            return site
    except (KeyError, TypeError, AttributeError):  # atlas.json may hold anything
        pass
    raise DeconvnetError(f"{folder / 'atlas.json'} is not what deconvnet atlas writes: make the atlas again")


def serve(folder: Path, site: Site, net: Network, port: int | None, say: Say) -> None:
    """Serves the atlas in a folder to this computer until Ctrl-C, which raises KeyboardInterrupt.

    Args:
        folder: where the atlas lies.
        site: what ``open_atlas`` gives of it.
        net: its network.
        port: 0 for any that is free; None for 8765, or the next that is free.
        say: takes a line for the terminal.

    Raises UsageError for a port that cannot be had.
    """
    token = secrets.token_urlsafe(24)
    with _listening(port) as listener:
        number = listener.getsockname()[1]
        looking = Looking(net, site)
        server = _server(application(folder, looking, token, number, say))
        address = f"http://127.0.0.1:{number}/{token}/"
        say(f"The atlas of {site.about['name']}, open to this computer alone:\n  {address}\n"
            f"A picture of your own in it:\n  {address}own\n"
            "The addresses are secret: whoever has one can look. Ctrl-C closes them.")
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        ended = False
        with suppress(KeyboardInterrupt):
            ended = looking.rest(REST)
        if not ended:  # deep in a decoder or in a large network; nothing is being written that could be cut off
            say("Closed.")
            os._exit(130)
    raise KeyboardInterrupt("Closed.")


def _server(app: ASGIApp) -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(
        app, http="h11", ws="none", loop="asyncio", lifespan="off", log_config=None, log_level="critical",
        access_log=False, proxy_headers=False, server_header=False, date_header=False, limit_concurrency=64,
        timeout_graceful_shutdown=0))


@contextmanager
def _listening(port: int | None) -> Iterator[socket.socket]:
    """A socket that listens on 127.0.0.1. Raises UsageError where the port cannot be had."""
    listener = next(filter(None, map(_listener, [port] if port is not None else [*range(PORT, PORT + NEAR), 0])), None)
    if listener is None:
        raise UsageError(f"Port {port} is taken, or not yours to take: choose another with --port, or 0 for any")
    with listener:
        yield listener


def _listener(port: int) -> socket.socket | None:
    """A socket that listens on this port of 127.0.0.1; None where that is not possible."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # the port of a server that was just closed can be had; of one that runs it cannot
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        return listener
    except (OSError, OverflowError):  # OverflowError: no such port
        listener.close()
        return None


def application(folder: Path, looking: "Looking", token: str, port: int, say: Say) -> ASGIApp:
    """The whole of what is served, behind its gate. ``looking`` is asked for pictures of one's own."""
    pages, own = _Pages(folder), _Own(looking, say)
    app = Starlette(routes=[
        Route("/own", own.page),
        Route("/own/look", own.look, methods=["POST"]),
        Route("/own/{answer}/{name}", own.picture),
        Route("/static/{name:path}", pages.static),
        Route("/{words:path}", pages.file),
    ], exception_handlers={HTTPException: _nothing, Exception: _nothing})
    app.router.redirect_slashes = False
    return Gate(app, token, port, say)


async def _nothing(request: Request, error: Exception) -> Response:
    return Response(status_code=getattr(error, "status_code", 500), headers=getattr(error, "headers", None))


class Gate:
    """Lets nobody in but who asks for an address with the token, of this host, and not from another one's page.

    So a page from elsewhere gets nothing: it knows no token; by its own name for this computer (DNS rebinding) the host
    is another; and what it sends carries its origin. All answers get the headers that keep them to themselves.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, say: Say) -> None:
        self.app, self.token, self.say = app, token.encode(), say
        names = ("127.0.0.1", "localhost")
        self.hosts = {f"{name}:{port}" for name in names} | (set(names) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is spoken here, not {scope['type']}")
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if _has_body(scope):  # that may not have been read to its end, and need not be
                    headers["Connection"] = "close"
            await send(message)

        token, slash, rest = scope["path"].removeprefix("/").partition("/")
        refusal = self._refusal(scope, token)
        inner = Response(status_code=refusal) if refusal else self.app if slash else RedirectResponse(f"/{token}/")
        try:
            await inner({**scope, "path": f"/{rest}", "root_path": ""}, receive, send_with_headers)
        except Exception as error:
            self.say(f"A request failed: {type(error).__name__}: {error}")
            if not begun:
                await Response(status_code=500)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, token: str) -> int:
        """The status with which a request is refused; 0 where it is not."""
        hosts, origins, sites = (_header(scope, name) for name in (b"host", b"origin", b"sec-fetch-site"))
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return 421
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self.token):
            return 204 if scope["path"] == "/favicon.ico" else 404  # browsers ask, and would report an error
        elsewhere = any(origin != f"http://{hosts[0].lower()}" for origin in origins) or set(sites) - {"same-origin"}
        return 403 if scope["method"] not in ("GET", "HEAD") and elsewhere else 0


def _header(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _has_body(scope: Scope) -> bool:
    return bool(_header(scope, b"transfer-encoding")) or any(size != "0" for size in _header(scope, b"content-length"))


# ---- the pages of the atlas ----


class _Pages:
    """The files below a folder, and none beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def file(self, request: Request) -> Response:
        """A file of the atlas; of a folder its index.html."""
        words = request.scope["path"].removeprefix("/")
        try:
            path = self._inside(words)
            if path and path.is_dir() and words and not words.endswith("/"):
                return RedirectResponse(quote(f"{words.rpartition('/')[2]}/"))
            path = path / "index.html" if path and (path.is_dir() or words.endswith("/")) else path
            if path and path.suffix in KINDS and path.is_file() and path.resolve().is_relative_to(self.folder):
                return Response(path.read_bytes(), headers={"Content-Type": KINDS[path.suffix]})
        except (OSError, ValueError, RuntimeError):  # gone since; no name of a file at all; links round in a circle
            pass
        return Response(status_code=404)

    def _inside(self, words: str) -> Path | None:
        """The file or folder of an address, if it is below ours, whatever links lead there."""
        parts = words.removesuffix("/").split("/") if words else []
        if any(part.startswith(".") or not part or set(part) & set("\\:\0") for part in parts):
            return None
        path = self.folder.joinpath(*parts).resolve(strict=True)
        return path if path.is_relative_to(self.folder) else None

    def static(self, request: Request) -> Response:
        """What the page of one's own needs, or else what the atlas has there; its script then leads to that page."""
        name = request.path_params["name"]
        found = Response(_resource(name), headers={"Content-Type": KINDS[Path(name).suffix]}) if name in OWN else \
            self.file(request)
        if name == "atlas.js" and found.status_code == 200:
            return Response(bytes(found.body) + _resource("served.js"), headers={"Content-Type": KINDS[".js"]})
        return found


def _resource(name: str) -> bytes:
    return resources("deconvnet.atlas").joinpath("static", name).read_bytes()


# ---- a picture of one's own ----


class Refused(Exception):
    """What cannot be looked at: a status, and a sentence for the one who sent it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status, self.sentence = status, sentence


class Looking:
    """Looks at pictures, one at a time, until it is told to rest."""

    def __init__(self, net: Network, site: Site) -> None:
        self.net, self.site = net, site
        self.turn, self.closing = Lock(), Event()

    def __call__(self, content: bytes, layer: dict[str, Any], unit: int | None) -> Seen:
        """What a layer makes of the picture in the bytes of a file. Raises DeconvnetError, or Refused when closing."""
        with self.turn:
            self.check()
            image = decode_image(content, "This picture cannot be read")
            self.check()
            return look(self.net, image, layer["key"], unit, self.check)

    def check(self) -> None:
        """Raises Refused where the server is being closed."""
        if self.closing.is_set():
            raise Refused(503, "The server is being closed.")

    def rest(self, seconds: float) -> bool:
        """No picture is begun any more. Whether the one that is being looked at has come to an end in time."""
        self.closing.set()
        ended = self.turn.acquire(timeout=seconds)
        if ended:
            self.turn.release()
        return ended


class _Kept:
    """The pictures of the last answers, in memory, for a few minutes."""

    def __init__(self) -> None:
        self.answers: OrderedDict[str, tuple[float, dict[str, bytes]]] = OrderedDict()

    def keep(self, pictures: dict[str, bytes]) -> str:
        """Keeps the pictures of an answer, and gives the name by which they are had."""
        answer = secrets.token_urlsafe(12)
        self.answers[answer] = time.monotonic() + KEPT, pictures
        while len(self.answers) > ANSWERS:
            self.answers.popitem(last=False)
        asyncio.get_running_loop().call_later(KEPT + 1, self.forget)
        return answer

    def get(self, answer: str, name: str) -> bytes | None:
        """A picture, if it is still kept."""
        self.forget()
        return self.answers.get(answer, (0.0, {}))[1].get(name)

    def forget(self) -> None:
        """Drops what has been kept long enough."""
        while self.answers and next(iter(self.answers.values()))[0] < time.monotonic():
            self.answers.popitem(last=False)


class _Own:
    """The page of one's own, what it asks for, and the pictures in the answers."""

    def __init__(self, looking: Looking, say: Say) -> None:
        self.looking, self.say = looking, say
        self.layers = {layer["folder"]: layer for layer in looking.site.layers}
        self.kept, self.waiting = _Kept(), 0
        self.text = environment().get_template("own.html").render(site=looking.site, root="", limit=LIMIT)

    async def page(self, request: Request) -> Response:
        """The page itself."""
        return Response(self.text, headers={"Content-Type": KINDS[".html"]})

    async def picture(self, request: Request) -> Response:
        """A picture of an answer."""
        content = self.kept.get(**request.path_params)
        if content is None:
            return Response(status_code=404)
        return Response(content, headers={"Content-Type": KINDS[".webp"]})

    async def look(self, request: Request) -> Response:
        """The strongest activations in the picture that is sent, as JSON; where there is an error, a sentence."""
        try:
            return JSONResponse(await self._answer(request))
        except Refused as refused:
            return JSONResponse({"error": refused.sentence}, refused.status)
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody hears

    async def _answer(self, request: Request) -> dict[str, Any]:
        layer, unit = self._asked(request.query_params.get("layer", ""), request.query_params.get("unit", ""))
        if self.waiting >= WAITING:
            raise Refused(503, "Other pictures are being looked at. Try again in a moment.")
        self.waiting += 1
        try:
            content = await _body(request)
            seen = await run_in_threadpool(self._seen, content, layer, unit)
        finally:
            self.waiting -= 1
        return self._told(seen, layer, unit)

    def _asked(self, folder: str, unit: str) -> tuple[dict[str, Any], int | None]:
        """The layer and the unit of a question. Raises Refused where there is no such."""
        if folder not in self.layers:
            raise Refused(422, f"This atlas has no such layer. It has: {', '.join(self.layers)}.")
        layer = self.layers[folder]
        if not unit:
            return layer, None
        if not (unit.isascii() and unit.isdigit() and len(unit) < 10 and int(unit) < layer["units"]):
            raise Refused(422, f"{layer['name']} has the units 0 to {layer['units'] - 1}, and no other.")
        return layer, int(unit)

    def _seen(self, content: bytes, layer: dict[str, Any], unit: int | None) -> Seen:
        try:
            return self.looking(content, layer, unit)
        except DeconvnetError as error:
            raise Refused(422, f"{str(error).rstrip('.')}.") from error
        except Refused:
            raise
        except Exception as error:
            self.say(f"A picture could not be looked at: {type(error).__name__}: {error}")
            raise Refused(500, "The network failed on this picture; the terminal says why.") from error

    def _told(self, seen: Seen, layer: dict[str, Any], unit: int | None) -> dict[str, Any]:
        """The answer: all of it but the pictures themselves, which are kept."""
        pictures = {"whole.webp": seen.whole}
        for number, tile in enumerate(seen.tiles):
            pictures |= {f"r{number}.webp": tile.reconstruction, f"p{number}.webp": tile.patch}
        place = f"own/{self.kept.keep(pictures)}/"
        tiles = [self._tile(place, number, tile, layer) for number, tile in enumerate(seen.tiles)]
        return {"layer": layer["name"], "unit": unit, "size": seen.size, "whole": f"{place}whole.webp", "tiles": tiles}

    def _tile(self, place: str, number: int, tile: Tile, layer: dict[str, Any]) -> dict[str, Any]:
        return {
            "unit": tile.unit, "value": tile.value, "position": [tile.y, tile.x], "box": tile.box,
            "strongest": layer["list"][tile.unit]["strongest"],
            "page": f"{link(layer['folder'], tile.unit)}/index.html",
            "reconstruction": f"{place}r{number}.webp", "patch": f"{place}p{number}.webp",
        }


async def _body(request: Request) -> bytes:
    """The bytes of a picture. Raises Refused as soon as they are too many, or where they do not come."""
    too_large = Refused(413, f"This picture is too large: more than {LIMIT // 1_000_000} MB.")
    said = request.headers.get("content-length", "0")
    if not said.isdigit() or len(said) > 12 or int(said) > LIMIT:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(SLOWEST):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > LIMIT:
                    raise too_large
    except TimeoutError as error:
        raise Refused(408, "The picture did not arrive in time.") from error
    return b"".join(parts)
