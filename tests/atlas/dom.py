"""The elements of a page, read strictly: what is opened must be closed, in order."""

from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "input", "img", "br", "hr"}


class Element:
    """A tag with its attributes, what is in it, and the element that it is in."""

    def __init__(self, tag: str, attributes: dict[str, str | None], above: "Element | None") -> None:
        self.tag, self.attributes, self.above = tag, attributes, above
        self.inside: list[Element | str] = []

    def __getitem__(self, name: str) -> str:
        return self.attributes[name] or ""

    def __contains__(self, name: str) -> bool:
        return name in self.attributes

    def __iter__(self) -> "Iterator[Element]":
        """This element and all below it, in the order of the page."""
        yield self
        for inner in self.inside:
            if isinstance(inner, Element):
                yield from inner

    @property
    def text(self) -> str:
        return "".join(inner if isinstance(inner, str) else inner.text for inner in self.inside)

    @property
    def words(self) -> str:
        """The text with single spaces."""
        return " ".join(self.text.split())

    @property
    def classes(self) -> list[str]:
        return (self.attributes.get("class") or "").split()

    def all(self, tag: str, cls: str | None = None, where: "Which | None" = None) -> list["Element"]:
        return [e for e in self if e.tag == tag and (cls is None or cls in e.classes) and (where is None or where(e))]

    def one(self, tag: str, cls: str | None = None, where: "Which | None" = None) -> "Element":
        found, = self.all(tag, cls, where)
        return found

    def by_id(self, name: str) -> "Element":
        found, = (e for e in self if e.attributes.get("id") == name)
        return found

    def shape(self) -> list:
        """Tags and names of attributes, without what stands in them."""
        return [self.tag, sorted(self.attributes), [e.shape() for e in self.inside if isinstance(e, Element)]]


Which = Callable[[Element], bool]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.here = Element("", {}, None)

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice: {attrs}"
        made = Element(tag, dict(attrs), self.here)
        self.here.inside.append(made)
        if tag not in VOID:
            self.here = made

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert tag == self.here.tag, f"</{tag}> in <{self.here.tag}>, line {self.getpos()[0]}"
        self.here = self.here.above

    def handle_data(self, data):
        self.here.inside.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def handle_decl(self, decl):
        assert decl == "doctype html", decl

    def unknown_decl(self, data):
        raise AssertionError(f"a declaration: {data}")

    def handle_pi(self, data):
        raise AssertionError(f"an instruction: {data}")


def parse(page: str) -> Element:
    """The elements of a page. AssertionError where tags do not fit into each other, or there is a comment."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.here is reader.root, f"<{reader.here.tag}> is not closed"
    return reader.root


def read(path: Path) -> Element:
    return parse(path.read_bytes().decode("utf-8"))
