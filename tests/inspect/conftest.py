"""A browser for the tests of the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gptkit.inspect.inspection import Inspection
from gptkit.inspect.page import write_page

CHROMIUM = Path("/usr/bin/chromium")
Open = Callable[..., Any]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses root's
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open an inspection's page; at the end, no page may have asked for anything or said anything on its console."""
    said: list[str] = []
    asked: list[str] = []
    pages: list[Any] = []

    def opened(inspection: Inspection, *, hash: str = "", **options: Any) -> Any:
        path = tmp_path / "page.html"
        write_page(inspection, path)
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        pages.append(page)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{path.as_uri()}{hash}")
        return page

    yield opened
    for page in pages:
        page.close()
    assert not said
    assert {url.split("#")[0] for url in asked} == {(tmp_path / "page.html").as_uri()}
