"""What must hold of every page of any atlas, by its elements alone."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from dom import Element, read

POLICY = "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; base-uri 'none'; form-action 'none'"
LARGEST = 1_000_000  # bytes of a page
ADDRESSES = ("href", "src", "data-up", "data-before", "data-after")
NEVER = {"style", "base", "iframe", "object", "embed", "template"}


def pages(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))


def faults(folder: Path, page: Path, policy: str = POLICY) -> list[str]:
    """What is wrong with a page, each in a few words."""
    root = read(page)
    found = [*_addresses(folder, page, root), *_head(root, policy), *_content(root)]
    if page.stat().st_size > LARGEST:
        found.append(f"{page.stat().st_size} bytes")
    return found


def _addresses(folder: Path, page: Path, root: Element) -> Iterator[str]:
    """Those that do not lead to a file of the atlas, or to nothing on its page."""
    for element in root:
        names = [name for name in ADDRESSES if name in element]
        yield from (f"{name} of <{element.tag}>: {problem}" for name in names
                    if (problem := _problem(folder, page, element[name])))
    for option in root.all("option", where=lambda e: "data-units" in e):  # the script makes an address of it
        for unit in (0, int(option["data-units"]) - 1):
            if problem := _problem(folder, page, f"{option['value']}/{unit}/index.html"):
                yield f"option: {problem}"


def _problem(folder: Path, page: Path, address: str) -> str:
    path, _, fragment = address.partition("#")
    if re.match(r"[a-z][a-z0-9+.-]*:|/|\\", path, re.I):
        return f"{address} leads elsewhere"
    target = (page.parent / unquote(path)).resolve() if path else page.resolve()
    if not target.is_relative_to(folder.resolve()) or not target.is_file():
        return f"{address} leads nowhere"
    return "" if not fragment or unquote(fragment) in _ids(target) else f"{address}: no such place"


@cache
def _ids(page: Path) -> set[str]:
    return {element["id"] for element in read(page) if "id" in element}


def _head(root: Element, policy: str) -> Iterator[str]:
    head = root.one("head")
    order = [element.tag for element in head if element.tag in ("meta", "link", "script")]
    policies = [meta["content"] for meta in head.all("meta") if meta.attributes.get("http-equiv")]
    if policies != [policy] or order[:2] != ["meta", "meta"]:
        yield f"policy: {policies}"
    if root.one("html").attributes.get("lang") != "en":
        yield "no language"
    if not head.one("title").words:
        yield "no title"
    if head.all("meta")[0].attributes != {"charset": "utf-8"}:
        yield "no charset, or too late"
    if not any(meta.attributes.get("name") == "viewport" for meta in head.all("meta")):
        yield "no viewport"


def _content(root: Element) -> Iterator[str]:
    body = root.one("body")
    first = next(element for element in body if element.tag in ("a", "button", "input"))
    if "skip" not in first.classes or first["href"] != "#main" or root.by_id("main").tag != "main":
        yield "no link to the content before all others"
    if len(body.all("h1")) != 1 or not body.one("h1").words:
        yield f"{len(body.all('h1'))} h1"
    ids = [element["id"] for element in root if "id" in element]
    yield from (f"id {name} twice" for name in {name for name in ids if ids.count(name) > 1})
    for element in root:
        yield from _element(root, element)


def _element(root: Element, element: Element) -> Iterator[str]:
    tag, attributes = element.tag, element.attributes
    if tag in NEVER or (tag == "script" and ("src" not in element or element.text)):
        yield f"<{tag}> with something in it"
    for name, value in attributes.items():
        if name.startswith("on") or name in ("style", "srcset", "ping", "formaction", "action", "srcdoc"):
            yield f"{name} on <{tag}>"
        if re.search(r"https?://", value or ""):
            yield f"{name} of <{tag}>: {value}"
    if tag == "img" and not attributes.get("alt"):
        yield f"no alt on {element['src']}"
    if tag in ("a", "button") and not named(element):
        yield f"<{tag}> without words"
    if tag in ("input", "select", "textarea") and not labelled(element):
        yield f"<{tag} name={attributes.get('name')}> without a label"
    if attributes.get("role") == "img" and not attributes.get("aria-label"):
        yield f"<{tag} role=img> without a label"
    if tag in ("section", "svg") and "aria-labelledby" in element and not root.by_id(element["aria-labelledby"]).words:
        yield f"<{tag}> labelled by nothing"


def named(element: Element) -> bool:
    """Whether a link or button has a name for who does not see it."""
    return bool(element.attributes.get("aria-label") or element.words)


def labelled(element: Element) -> bool:
    """Whether a control has a name: of its own, or of the label that it stands in."""
    above = element.above
    while above and above.tag != "label":
        above = above.above
    words = "".join(inner if isinstance(inner, str) else "" for inner in above.inside) if above else ""
    return bool(element.attributes.get("aria-label") or words.strip())
