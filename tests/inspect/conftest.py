"""Pages in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gptkit.inspect.inspection import Inspection
from gptkit.inspect.page import write_page

Open = Callable[..., Any]


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
