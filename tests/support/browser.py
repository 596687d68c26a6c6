"""A headless browser that opens pages and reports what is wrong with them."""

import os
import shutil
from pathlib import Path

import pytest

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium with an empty profile; ended with the module, since it keeps an event loop running in this thread."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")), executable_path=program, headless=True, args=FLAGS
        )
        yield context.browser or context
        context.close()


@pytest.fixture(scope="session")
def axe():
    """The source of axe-core."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return (Path(package.__file__).parent / "axe.min.js").read_text()


class OpenPage:
    """A page, with all that its console and its requests have shown."""

    def __init__(self, page, file):
        self.page = page
        self.messages, self.requests = [], []
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(file.as_uri())
        self.others = [url for url in self.requests if url != file.as_uri() and not url.startswith("data:")]

    def __getattr__(self, name):
        return getattr(self.page, name)

    def charts(self):
        return self.page.evaluate("JSON.parse(document.getElementById('chart-data').textContent)")

    def violations(self, axe):
        self.page.evaluate(axe)
        found = self.page.evaluate("rules => axe.run({runOnly: rules})", RULES)["violations"]
        return [(each["id"], each["nodes"][0]["html"]) for each in found]


@pytest.fixture
def visit(browser):
    """Opens a file at a width and in a color scheme."""
    opened = []

    def visit(file, width=1280, scheme="light"):
        page = browser.new_page()
        opened.append(page)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        return OpenPage(page, file)

    yield visit
    for page in opened:
        page.close()


def assert_sound(page, width, axe, title):
    """No sideways scrolling, no message on the console, no request, nothing that axe-core reports."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.messages == []
    assert page.others == []
    assert page.title().endswith(title)
    assert page.violations(axe) == []


def rows(page, identifier):
    """The cells of a table, as text."""
    script = "all => all.map(row => [...row.cells].map(cell => cell.textContent))"
    return page.eval_on_selector_all(f"#{identifier} tbody tr", script)


def texts(page, selector):
    """The text of all elements that a selector finds."""
    return page.eval_on_selector_all(selector, "all => all.map(each => each.textContent)")


def focus_chart(page, name):
    """Moves to a chart by keyboard, and returns it."""
    for _ in range(50):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.chart") == name:
            break
    return page.locator(f"figure[data-chart='{name}']")
