"""The page of a probe in a browser: its views agree with the result, it fetches nothing, and it fits narrow screens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(params=[(1280, "light"), (400, "dark")])
def page(request: pytest.FixtureRequest, browser: Any, planted: Any) -> Iterator[Any]:
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(planted.page.as_uri())
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
    assert not said
    assert asked == [planted.page.as_uri()]


def test_every_view_shows_what_the_result_says(page: Any, planted: Any) -> None:
    result = planted.result
    rows = page.locator("#layers tbody tr")
    assert rows.count() == len(result["layers"])
    for index, row in enumerate(result["layers"]):
        rows.nth(index).click()
        assert f"{100 * row['accuracy']:.1f}%" in rows.nth(index).inner_text()
        assert page.locator("#units h3").inner_text().startswith(f"layer {row['layer']}, ")
        fits = page.locator("#units table").first.locator("tbody tr")
        assert fits.count() == len(row["by_units"])
    assert page.locator("#values svg").count() == 2
    assert page.locator("#values h3").first.inner_text() == f"unit {result['unit']}"
    tokens = page.locator("#texts .text").first.locator(".read")
    before = tokens.last.get_attribute("title")
    page.get_by_role("button", name="direction of").click()
    assert page.locator("#texts .text").first.locator(".read").last.get_attribute("title") != before
    held = page.locator("#held code").all_inner_texts()
    assert held == [
        f"gptkit generate --steer {sample['steer']} --model {result['model']}" for sample in result["samples"]
    ]
