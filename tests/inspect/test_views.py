"""The page in a browser, used as a person uses it: each view has a test that clicks, types and reads a number."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gptkit.inspect.answer import Answer
from gptkit.inspect.inspection import Inspection
from gptkit.inspect.knock_out import KnockOut
from gptkit.inspect.page import SCRIPTS
from gptkit.inspect.sidecar import tensors_of
from inspection_toy import made_inspection

Open = Callable[..., Any]


@pytest.fixture
def made() -> Inspection:
    return made_inspection()


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)]


def cells(row: Any) -> list[str]:
    return [text.strip() for text in row.locator("th, td").all_inner_texts()]


def body_rows(table: Any) -> list[list[str]]:
    return [cells(row) for row in table.locator("tbody tr").all()]


def opened_table(view: Any, title: str) -> Any:
    view.get_by_text(title).click()
    table = view.locator("details table")
    table.wait_for()
    return table


def token(page: Any, position: int) -> Any:
    return page.locator(".strip button").nth(position)


def test_tokens(show: Open, made: Inspection) -> None:
    page = show(made)
    token(page, 8).click()
    view = page.locator("#tokens")
    assert cells(view.locator("tr[aria-current]")) == ["8", "␣the", str(made.tokens.ids[8])]
    page.keyboard.press("ArrowRight")
    assert cells(view.locator("tr[aria-current]")) == ["9", "␣dog", str(made.tokens.ids[9])]
    assert "<E4><BD>" in view.inner_text()
    shown = [[float(cell) for cell in row[1:]] for row in body_rows(view.locator("table").nth(1))]
    exact = tensors_of(made)
    parts = exact["tokens.token_embedding"][9], exact["tokens.position_embedding"][9]
    for row, vector in zip(shown, (*parts, sum(parts)), strict=True):
        assert row == pytest.approx([*vector[:8], np.linalg.norm(vector)], abs=0.003)


def test_attention(show: Open, made: Inspection) -> None:
    page, exact = show(made), tensors_of(made)
    view = page.locator("#attention")
    view.get_by_role("button", name="1.2 0.93").click()  # the head named previous-token
    assert view.get_by_role("heading", name="Layer 1, head 2").is_visible()
    box = view.locator(".large").bounding_box()
    side = box["width"] / 14
    view.locator(".large").click(position={"x": 9.5 * side, "y": 10.5 * side})
    weight, score = numbers(view.locator(".readout").inner_text())[2:]
    assert weight == pytest.approx(exact["attention.weights"][1, 2, 10, 9], abs=0.006)
    assert score == pytest.approx(exact["attention.scores"][1, 2, 10, 9], abs=0.03)
    rows = body_rows(view.locator("table").last)
    assert [float(row[3]) for row in rows[:-1]] == pytest.approx(exact["attention.weights"][1, 2, 10, :11], abs=0.006)
    assert rows[-1] == ["11 to 13", "3 later tokens", "masked", "0"]
    view.locator(".thumb[aria-current]").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert view.get_by_role("heading", name="Layer 2, head 1").is_visible()
    view.get_by_role("button", name="scores before softmax").click()
    assert view.locator("[data-value=scores]").get_attribute("aria-pressed") == "true"
    assert ["1.2", "0.930", "0.050", "0.050"] in body_rows(opened_table(view, "Table of all heads and their types"))


def test_the_masked_half_is_visibly_empty(show: Open, made: Inspection) -> None:
    page = show(made)
    inked = page.evaluate(
        """() => { const canvas = document.querySelector(".large canvas");
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return Array.from({length: canvas.width ** 2}, (_, at) => data[4 * at + 3]); }"""
    )
    ink = np.array(inked).reshape(14, 14)
    assert not ink[np.triu_indices(14, 1)].any()
    assert (ink[:, 0] > 0).all()
    exact = np.sqrt(tensors_of(made)["attention.weights"][2, 1]) * 255
    assert np.abs(ink - exact)[np.tril_indices(14)].max() < 3
    assert page.get_by_text("masked: the future").is_visible()


def test_one_head_by_hand(show: Open, made: Inspection) -> None:
    page, exact = show(made), tensors_of(made)
    view = page.locator("#by-hand")
    token(page, 9).click()
    view.get_by_role("button", name="all keys").click()
    view.locator("tr", has_text="␣cat (1)").click()
    table = body_rows(view.locator("table").first)
    keys, total = table[:10], table[-1]
    assert table[-2][3] == "−∞"
    dots, scores, powers, weights, values, products = (
        np.array([float(row[column]) for row in keys]) for column in (1, 2, 4, 5, 6, 7)
    )
    q, k, _ = np.array([row[1:] for row in body_rows(view.locator("table").nth(1))], float).T
    assert q @ k == pytest.approx(dots[1], abs=1e-3)  # from the numbers on the page alone, as all that follow
    assert dots / np.sqrt(len(q)) == pytest.approx(scores, abs=1e-4)
    assert np.exp(scores - scores.max()) == pytest.approx(powers, abs=1e-4)
    assert powers / powers.sum() == pytest.approx(weights, abs=1e-4)
    assert weights * values == pytest.approx(products, abs=1e-4)
    assert products.sum() == pytest.approx(float(total[7]), abs=1e-4)
    assert scores == pytest.approx(exact["attention.scores"][2, 1, 9, :10], abs=1e-4)
    assert weights == pytest.approx(exact["attention.weights"][2, 1, 9, :10], abs=1e-5)
    view.locator(".cells button").nth(3).click()
    _, summed, of_model = numbers(view.locator(".readout").last.inner_text())
    assert summed == of_model == pytest.approx(exact["hand.output"][9, 3], abs=1e-4)


@pytest.mark.parametrize("family", ["GPT-1", "GPT-2"])
def test_path_of_a_token(show: Open, family: Any) -> None:
    made = made_inspection(family=family)
    page, exact = show(made), tensors_of(made)
    view = page.locator("#path")
    assert ("after that layer norm" in view.inner_text()) == (family == "GPT-1")
    token(page, 5).click()
    page.keyboard.press("Shift+ArrowUp")  # from layer 2, that of the head by hand
    assert "layer 1" in page.locator(".where").inner_text()
    site, *shown = cells(opened_table(view, "Table of the path").locator("tr[aria-current]"))
    assert site == "1 MLP"
    expected = [exact[f"path.{name}"][4, 5] for name in ("norms", "turn", "to_end")]
    assert [float(cell) for cell in shown] == pytest.approx(expected, abs=6e-4)
    after, *likeliest, rank, kl = cells(view.locator("table").last.locator("tr[aria-current]"))
    assert after == "layer 1"
    assert int(rank) == exact["lens.rank"][2, 5]
    assert float(kl) == pytest.approx(exact["lens.kl"][2, 5], abs=6e-4)
    assert [text.split()[-1] for text in likeliest[:1]] == [f"{100 * exact['lens.top_probabilities'][2, 5, 0]:.0f}%"]
    view.get_by_role("region", name="Logit lens").focus()
    for key in ("ArrowUp", "ArrowDown", "ArrowDown", "ArrowRight"):  # the focus stays, though the picture is drawn anew
        page.keyboard.press(key)
    assert page.locator(".where").inner_text() == "token , (6) · layer 2 · head 1"
    view.locator(".lens td").first.click()
    assert "layer 0" in page.locator(".where").inner_text()


def test_who_wrote_this_token(show: Open, made: Inspection) -> None:
    page, exact = show(made), tensors_of(made)
    view = page.locator("#shares")
    token(page, 3).click()
    total, logit = numbers(view.locator(".readout").inner_text())
    assert total == logit == pytest.approx(exact["shares.logit"][3], abs=6e-4)
    largest = body_rows(view.locator("table").first)
    assert sum(float(row[1]) for row in largest) == pytest.approx(total, abs=0.01)
    by_layer = dict(body_rows(view.locator("table").nth(1)))
    assert float(by_layer["layer 1: heads"]) == pytest.approx(exact["shares.heads"][1, :, 3].sum(), abs=6e-4)
    head = next(name for name, _ in largest if name.startswith("head"))
    view.locator("tr", has_text=head).first.click()
    layer, number = head.removeprefix("head ").split(".")
    assert page.get_by_role("heading", name=f"Layer {layer}, head {number}").is_visible()
    row = cells(opened_table(view, "Table of all heads and MLPs").locator("tr[aria-current]"))
    assert float(row[1 + int(number)]) == pytest.approx(exact["shares.heads"][int(layer), int(number), 3], abs=6e-4)


def test_loss(show: Open, made: Inspection) -> None:
    page, exact = show(made), tensors_of(made)
    view = page.locator("#loss")
    view.locator("[data-token='7']").click()  # its surprisal is what was predicted after token 6
    probability, surprisal, rank, entropy = numbers(view.locator(".readout").inner_text().split("followed")[1])
    assert surprisal == pytest.approx(exact["loss.nll"][6], abs=6e-5)
    assert probability == pytest.approx(np.exp(-exact["loss.nll"][6]), rel=0.06, abs=6e-5)
    assert rank == exact["loss.rank"][6]
    assert entropy == pytest.approx(exact["loss.entropy"][6], abs=6e-4)
    likeliest = [float(row[2]) for row in body_rows(view.locator("table", has_text="The five most likely"))]
    assert likeliest == pytest.approx(exact["loss.top_probabilities"][6], rel=0.06, abs=6e-5)
    view.get_by_role("button", name="k 2", exact=True).click()
    view.get_by_role("button", name="p 0.50").click()
    rules = body_rows(view.locator("table", has_text="What sampling keeps"))
    cut = exact["loss.rank"][:-1] > 2, exact["loss.mass_above"][:-1] >= 0.5
    assert [row[4] for row in rules] == [f"{part.sum()} of 13" for part in cut]
    assert [row[3] for row in rules] == ["cut" if part[6] else "kept" for part in cut]
    assert view.locator(".cross").count() == sum(part.sum() for part in cut)
    means = body_rows(view.locator("table", has_text="Loss by position"))
    assert float(means[0][1]) == pytest.approx(exact["loss.nll"][0], abs=6e-4)
    facts = numbers(page.locator(".facts").inner_text())
    assert facts[-3] == pytest.approx(made.loss.total, abs=0.006)
    surprisals = [float(row[2]) for row in body_rows(opened_table(view, "Table of all tokens"))]
    assert sum(surprisals) == pytest.approx(made.loss.total, abs=0.001)


def test_knock_out(show: Open, made: Inspection) -> None:
    page, exact = show(made), tensors_of(made)
    view = page.locator("#knock-out")
    token(page, 6).click()
    losses, whole = exact["knock_out.losses"], exact["knock_out.whole"]
    names = ("head {0}.0", "head {0}.1", "head {0}.2", "head {0}.3", "attention {0}", "MLP {0}")
    changes = {name.format(layer): losses[layer, part] - whole for layer in range(3) for part, name in enumerate(names)}
    of_text = {name: change[:-1].sum() for name, change in changes.items()}
    of_token = {name: change[6] for name, change in changes.items()}
    for place, expected in enumerate((of_text, of_token)):
        shown = body_rows(view.locator(".columns table").nth(place))
        assert [name for name, _ in shown] == sorted(expected, key=lambda name: -abs(expected[name]))[:10]
        assert [float(value) for _, value in shown] == pytest.approx([expected[name] for name, _ in shown], abs=2e-3)
    view.get_by_role("button", name="the MLP of a layer").click()
    assert "without MLP 2" in view.locator(".readout").inner_text()
    first = max(of_text, key=lambda name: abs(of_text[name]))
    view.locator(".columns table").first.locator("tbody tr").first.click()
    assert f"without {first} " in view.locator(".readout").inner_text()
    before, *_, after, change = numbers(view.locator(".readout").inner_text())
    assert before == pytest.approx(whole[:-1].sum(), abs=6e-4)
    assert change == pytest.approx(of_text[first], abs=6e-4)
    assert after == pytest.approx(before + change, abs=0.002)
    view.locator("[data-token='3']").click()
    assert "(2)" in page.locator(".where").inner_text()
    assert f"{changes[first][2]:+.2f}" in view.locator(".chart .value").text_content()
    assert view.locator(".column.below").count() == (changes[first][:-1] < 0).sum()
    row = cells(opened_table(view, "Table of all parts").locator("tr[aria-current]"))
    in_layer = [name for name in of_text if re.match(rf"\w+ {row[0]}\b", name)]
    assert [float(value) for value in row[1:]] == pytest.approx([of_text[name] for name in in_layer], abs=6e-4)


def test_knock_out_left_out_says_how_to_get_it(show: Open, made: Inspection) -> None:
    view = show(replace(made, knock_out=None)).locator("#knock-out")
    assert "it takes about 36 seconds on two cores. Run the same command with --knock-out" in view.inner_text()
    assert view.locator("table").count() == 0


def test_knock_out_of_an_answer(show: Open, made: Inspection) -> None:
    losses = np.full((3, 6), 0.25, np.float32)
    losses[1, 4], losses[0, 5] = 1.5, 0.125
    view = show(replace(made, answer_knock_out=KnockOut(np.array(0.25, np.float32), losses))).locator("#knock-out")
    assert body_rows(view.locator(".answer table"))[:2] == [["attention 1", "+1.250"], ["MLP 0", "-0.125"]]
    assert "whose loss is 0.2500" in view.inner_text()


def test_the_links_hash_shows_what_its_sender_saw(show: Open, made: Inspection) -> None:
    page = show(made)
    token(page, 4).click()
    page.get_by_role("button", name="1.2 0.93").click()
    page.get_by_role("link", name="6 Loss").click()
    page.wait_for_timeout(500)  # the hash follows when nothing has changed for a moment
    other = show(made, hash=page.evaluate("location.hash"))
    assert other.locator(".where").inner_text() == "token ␣the (4) · layer 1 · head 2"
    assert other.evaluate("scrollY") > 1000
    strange = show(made, hash="#token=-3&layer=99&head=NaN&view=nothing&show=%3Cscript%3E")
    assert strange.locator(".where").inner_text() == "token The (0) · layer 2 · head 0"


def test_hostile_text_stays_text(show: Open) -> None:
    hostile = (
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(2)</script>",
        "\u202e\x1b[31m",
        "&lt;b&gt;",
        "'\"`${1}",
    )
    page = show(made_inspection(pieces=hostile * 3))
    for position in range(15):
        token(page, position).click()
    scripts, outer = (page.locator(f"{place}script").count() for place in ("", "body > "))
    assert scripts == outer == len(SCRIPTS) + 1
    assert page.locator("img, b").count() == 0
    assert token(page, 0).inner_text().strip() == "<img␣src=x␣onerror=alert(1)>"
    assert token(page, 3).inner_text().strip() == "&lt;b&gt;"
    assert "\u202e" not in page.locator("body").inner_text()


@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_texts_are_shown(show: Open, length: int) -> None:
    page = show(made_inspection(length=length))
    page.keyboard.press("ArrowRight")
    assert page.locator("#loss .readout").is_visible()


@pytest.mark.parametrize("width", [1280, 800, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_its_window(show: Open, made: Inspection, width: int, scheme: str) -> None:
    page = show(made, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    paper = {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 29)"}[scheme]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper


@pytest.mark.parametrize("width", [1280, 400])
def test_long_tokens_and_long_choices_are_no_wider_than_their_window(show: Open, width: int) -> None:
    answer = Answer(("He told her what he had seen. " * 8, "no"), np.array([0.75, 0.25], np.float32))
    page = show(made_inspection(pieces=("-" * 64, "a") * 7, answer=answer), viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_tab_key_passes_tables_in_one_step_and_arrows_select_in_them(show: Open) -> None:
    page = show(made_inspection(length=60, width=256))
    stops = page.locator("a, button:not([tabindex='-1']), summary, [tabindex='0']").count()
    views = page.locator("main > section").count()
    assert stops < 6 * views  # rows, thumbnails and the numbers of an output are reached by arrows
    cells = page.locator("#by-hand .cells")
    cells.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert cells.locator("[aria-pressed=true]").get_attribute("title") == "dimension 2"


def test_a_change_of_height_alone_moves_nothing(show: Open) -> None:
    page = show(made_inspection(length=60))  # as on a phone, whose address bar comes and goes
    strip = page.locator(".strip")
    strip.evaluate("strip => strip.scrollLeft = 7")
    page.set_viewport_size({"width": 1280, "height": 700})
    page.wait_for_timeout(100)
    assert strip.evaluate("strip => strip.scrollLeft") == 7
    page.set_viewport_size({"width": 700, "height": 700})
    page.wait_for_function("document.querySelector('#loss .chart').viewBox.baseVal.width < 700")


def test_a_held_key_stops_when_it_is_released(show: Open, made: Inspection) -> None:
    page = show(made)
    before = page.locator(".where").inner_text()
    page.evaluate(
        """() => { const late = new KeyboardEvent("keydown", {key: "ArrowRight", repeat: true, bubbles: true});
        return new Promise((done) => setTimeout(() => done(document.body.dispatchEvent(late)), 150)); }"""
    )
    assert page.locator(".where").inner_text() == before
    page.keyboard.press("ArrowRight")
    assert page.locator(".where").inner_text() != before


def test_arrows_scroll_a_table_of_numbers(show: Open) -> None:
    page = show(made_inspection(layers=3, heads=12, width=48), viewport={"width": 400, "height": 800})
    page.get_by_text("Table of all heads and MLPs").click()
    box = page.get_by_role("region", name="Table of all heads and MLPs")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("box => box.scrollLeft > 0", arg=box.element_handle())
    assert page.locator(".where").inner_text() == "token ␣and (7) · layer 2 · head 1"


def test_on_paper_everything_is_light_and_nothing_is_cut(show: Open, made: Inspection) -> None:
    page = show(made, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".links").is_visible()
    hidden = "boxes => boxes.filter((box) => box.scrollHeight > box.clientHeight + 1).length"
    assert page.locator(".scroll, .cells").evaluate_all(hidden) == 0


def test_a_fine_tuned_models_answer_is_shown(show: Open) -> None:
    answer = Answer(("no", "<b>yes</b>"), np.array([0.25, 0.75], np.float32))
    page = show(made_inspection(answer=answer))
    assert body_rows(page.locator(".answer")) == [["no", "0.2500"], ["<b>yes</b>", "0.7500"]]
    assert "(13)" in page.locator(".where").inner_text()  # the last token, which the head reads
    score = Answer(("score",), np.array([3.5], np.float32), is_score=True)
    assert body_rows(show(made_inspection(answer=score)).locator(".answer")) == [["score", "3.5000"]]


def test_every_picture_is_named_and_every_table_has_headings(show: Open, made: Inspection) -> None:
    page = show(made)
    for summary in page.locator("summary").all():
        summary.click()
        summary.locator("xpath=..").locator("table").wait_for()
    assert page.locator("[role=img]:not([aria-label])").count() == 0
    assert page.locator("svg:not([aria-hidden=true])").count() == 0  # some browsers read their marks one by one
    assert page.locator("table:not(:has(caption)), table:not(:has(th[scope=col]))").count() == 0
    assert page.locator("details table").count() == 6


def test_a_page_of_gpt2_smalls_shape_opens_in_2_seconds_and_answers_a_click_in_100_milliseconds(show: Open) -> None:
    answer = """([token, head]) => new Promise((done) => { const start = performance.now();
        document.querySelectorAll(".strip button")[token].click();
        document.querySelectorAll(".thumb")[head].click();
        requestAnimationFrame(() => setTimeout(() => done((performance.now() - start) / 2))); })"""

    def times(made: Inspection) -> tuple[float, float]:
        """Return the seconds to open a page, and the milliseconds of a click."""
        (layers, heads), length = made.heads.scores.shape[:2], len(made.tokens.ids)
        start = time.perf_counter()
        page = show(made)
        assert page.locator(".thumb").count() == layers * heads
        opened = time.perf_counter() - start
        places = [[1 + step * length // 10, heads * (step % layers)] for step in range(9)]
        return opened, float(np.median([page.evaluate(answer, place) for place in places]))

    (small, small_click), (large, large_click) = times(made_inspection()), times(made_inspection(12, 12, 128, 768))
    assert large < max(2, 3 * small)  # a slow machine takes over a second for the small page
    assert large_click < max(100, 5 * small_click)
