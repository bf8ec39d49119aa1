"""The page of a picture of one's own, in a browser: it is dropped or chosen, and what a layer makes of it is shown."""

import shutil
from base64 import b64encode

import pytest
from bad_images import REFUSED, encode
from test_serve import JPEG, TOKEN, photograph, serving

from deconvnet.atlas import serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DROP = """({ content, more }) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes, new Uint8Array(more)], "mine"));
  const zone = document.getElementById("drop");
  for (const kind of ["dragover", "drop"]) {
    zone.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def site(small_atlas):
    with serving(small_atlas.folder, serve.Looking(small_atlas.net, serve.open_atlas(small_atlas.folder))) as running:
        yield running


class Visit:
    """A page, with everything that went wrong on it and everything that it asked for."""

    def __init__(self, browser, site, width=1280):
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.wrong, self.asked = [], []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", self.failed)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.home = f"http://{site.host}/{TOKEN}/"
        self.page.goto(f"{self.home}own")

    def failed(self, request):
        if request.failure != "net::ERR_ABORTED":  # a picture of an answer that another one has replaced
            self.wrong.append(request.url)

    def choose(self, content, name="mine.jpg"):
        self.page.set_input_files("input[type=file]", {"name": name, "mimeType": "image/jpeg", "buffer": content})

    def drop(self, content, more=0):
        """Drops a picture, with some zeros behind it."""
        self.page.evaluate(DROP, {"content": b64encode(content).decode(), "more": more})

    def heading(self, words):
        self.page.get_by_role("heading", name=words).wait_for()

    def broken(self):
        """Pictures that are shown and did not arrive."""
        return self.page.evaluate("""async () => {
          const pictures = [...document.querySelectorAll("#result img")];
          return (await Promise.all(pictures.map((one) => one.decode().then(() => 0, () => one.src)))).filter(Boolean);
        }""")

    def close(self):
        assert self.wrong == []
        assert all(address.startswith(self.home) or address.endswith("/favicon.ico") for address in self.asked)
        self.page.close()


@pytest.fixture
def visit(browser, site, request):
    made = Visit(browser, site, getattr(request, "param", 1280))
    yield made
    made.page.close()


def test_a_picture_is_chosen_with_keys_alone(visit):
    page = visit.page
    visit.choose(JPEG)
    visit.heading("units of conv3 that fire most")
    assert page.locator(".own-tiles li").count() == page.locator(".own-whole rect").count() > 0
    assert visit.broken() == []
    page.keyboard.press("Tab")  # past the link to the content
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "unit":
            break
    page.keyboard.type("2")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Home")  # the first layer
    visit.heading("Where conv1:2 fires most")
    assert visit.broken() == []
    first = page.locator(".own-tiles li").first
    first.get_by_role("link").focus()
    assert page.locator(".own-whole rect.now").count() == 1
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url == f"{visit.home}conv1/2/index.html" and page.title().startswith("conv1:2")
    visit.close()


@pytest.mark.parametrize("visit", [390, 1280], indirect=True)
def test_a_picture_is_dropped(visit):
    visit.drop(encode(photograph((1200, 300)), "PNG"))
    visit.heading("units of conv3 that fire most")
    visit.page.select_option("select[name=layer]", "conv2")
    visit.heading("The 9 units of conv2 that fire most")
    assert visit.page.evaluate("document.querySelector('input[type=file]').files[0].name") == "mine"
    assert visit.broken() == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") == visit.page.viewport_size["width"]
    visit.close()


def test_what_cannot_be_looked_at_is_said_in_words(visit, monkeypatch):
    page, alert = visit.page, visit.page.get_by_role("alert")
    page.get_by_role("button", name="Look").click()
    assert alert.inner_text() == "First choose a picture."
    visit.choose(JPEG)
    visit.heading("units of conv3 that fire most")
    assert not alert.is_visible()
    visit.choose(REFUSED["text.jpg"][0])
    alert.filter(has_text="not an image").wait_for()
    assert alert.is_visible() and not page.locator("#result").is_visible()
    asked = len(visit.asked)  # what is too large is not even sent
    visit.drop(JPEG, serve.LIMIT)
    alert.filter(has_text="too large").wait_for()
    assert len(visit.asked) == asked
    visit.wrong = [words for words in visit.wrong if "422" not in words]  # which the browser notes by itself
    visit.close()


def test_the_last_choice_is_what_is_shown(visit):
    visit.choose(JPEG)
    for unit in (1, 2, 3, 0):
        visit.page.fill("input[name=unit]", str(unit))
        visit.page.evaluate("document.querySelector('input[name=unit]').dispatchEvent(new Event('change'))")
    visit.page.locator("#progress").wait_for(state="hidden")
    assert "conv3:0" in visit.page.locator("#found").inner_text()
    visit.close()


def test_every_page_of_the_atlas_leads_to_it(visit):
    for page in ("", "conv1/", "conv1/0/"):
        visit.page.goto(f"{visit.home}{page}")
        visit.page.get_by_role("link", name="A picture of your own").click()
        assert visit.page.url == f"{visit.home}own"
        assert visit.page.get_by_role("link", name="A picture of your own").count() == 0, "here it leads nowhere"
    visit.close()


def test_a_page_of_another_origin_can_neither_read_nor_show_it(browser, site, tmp_path):
    """Even one that knows the token."""
    page = browser.new_page()
    (tmp_path / "elsewhere.html").write_text("<!doctype html><title>elsewhere</title>")
    page.goto((tmp_path / "elsewhere.html").as_uri())
    read, shown = page.evaluate("""async (address) => {
      const image = new Image();
      const loaded = new Promise((done) => { image.onload = () => done(true); image.onerror = () => done(false); });
      image.src = `${address}conv1/r0.webp`;
      const frame = document.body.appendChild(document.createElement("iframe"));
      const framed = new Promise((done) => { frame.onload = done; });
      frame.src = address;
      await framed;
      return [await fetch(address).then(() => true, () => false), await loaded];
    }""", f"http://{site.host}/{TOKEN}/")
    assert not read and not shown
    assert page.frames[1].url.startswith("chrome-error:")
    page.close()
