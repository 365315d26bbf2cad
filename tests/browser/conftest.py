"""A real browser without a window, the network off, and pages that complain of anything that should not happen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from made_up_pages import everything, four_tasks, many_tasks, section_card, write
from playwright.sync_api import Browser, Page, sync_playwright
from visits import Visit

from seqbench.store import RunFolder

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return four_tasks(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def report(folder: RunFolder) -> Path:
    """The report of four tasks."""
    return write(folder, section_card(everything))


@pytest.fixture(scope="session")
def long_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 32 tasks."""
    return write(many_tasks(tmp_path_factory.mktemp("many")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; module by module, since Playwright keeps an event loop running in the thread."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = f"no browser: none of {', '.join(NAMES)} is on the PATH"
        if os.environ.get("SEQBENCH_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path)
        yield started
        started.close()


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Visit:
    """Open a page from disk: ``with visit(path, width=390, dark=True) as page``.

    When the visit ends, nothing must have gone to the console, no dialog have opened, and nothing but the file itself
    have been asked for.
    """

    @contextmanager
    def opened(
        path: Path, *, at: str = "", width: int = 1280, dark: bool = False, before: str = "", **context: Any
    ) -> Iterator[Page]:
        scheme = "dark" if dark else "light"
        tab = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **context
        )
        page = tab.new_page()
        page.set_default_timeout(5000)
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        if before:
            page.add_init_script(before)
        page.goto(path.as_uri() + at)
        yield page
        page.wait_for_timeout(20)
        tab.close()
        assert said == []
        assert {url.partition("#")[0] for url in asked} == {path.as_uri()}

    return opened
