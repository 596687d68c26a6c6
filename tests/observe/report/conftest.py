"""Reports are opened in a headless browser."""

from tests.support.browser import axe, browser, visit  # noqa: F401 - fixtures
