"""A headless Chromium for tests that open a page; in CI its absence is a failure, elsewhere a skip that says why."""

import shutil

import pytest
from engines import missing

# As root there is no sandbox; the rest keeps the browser from asking anything of the network by itself.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium with an empty profile, driven by Playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright", "make setup")
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("Chromium", "apt-get install chromium")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        yield started
        started.close()


class Opened:
    """A page in the browser: `page`, what it asked for in `requests`, and what went wrong in `errors`."""

    def __init__(self, browser, path, width: int, height: int = 850, **options):
        self.context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(90_000)
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.errors.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.errors.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.goto(f"file://{path}")

    def texts(self, selector: str) -> list[str]:
        """The text of every element, as it is shown: spaces are spaces, soft hyphens are none."""
        found = self.page.locator(selector).all_inner_texts()
        return [text.replace("\u00a0", " ").replace("\u00ad", "").strip() for text in found]

    def slide_to(self, place: int, viewer: str) -> None:
        """Move the slider of a viewer by the keyboard, step by step."""
        slider = self.page.locator(f"{viewer} input.frames")
        steps = place - int(slider.input_value())
        for _ in range(abs(steps)):
            slider.press("ArrowRight" if steps > 0 else "ArrowLeft")


@pytest.fixture
def opened(browser):
    """Open a page: opened(path, width, **options of the context)."""
    pages = []

    def open_page(path, width: int, **options) -> Opened:
        pages.append(Opened(browser, path, width, **options))
        return pages[-1]

    yield open_page
    for one in pages:
        one.context.close()
