"""What pictures show: every curve by its name, every name in letters that a font has."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
from matplotlib.font_manager import fontManager, get_font
from matplotlib.text import Text

from gptkit.evaluate.all_checkpoints import draw_zero_shot
from gptkit.finetune.command import _losses
from gptkit.report.plots import draw_loss

ROWS: list[dict[str, Any]] = [{"step": 10 * i, "loss": 5.0 / i} for i in range(1, 7)]
ROWS[2] |= {"val_loss": 2.0, "accuracy": 0.5}
ROWS[5] |= {"val_loss": 1.0, "accuracy": 0.75, "f1": None}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[matplotlib.figure.Figure]]:
    """Keep the figures that are drawn, where no fonts but matplotlib's own are installed."""
    kept: list[matplotlib.figure.Figure] = []
    save = matplotlib.figure.Figure.savefig

    def savefig(figure: matplotlib.figure.Figure, *words: Any, **settings: Any) -> None:
        kept.append(figure)
        save(figure, *words, **settings)

    own = [font for font in fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(fontManager, "ttflist", own)
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield kept


def texts(figure: matplotlib.figure.Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def curves(figure: matplotlib.figure.Figure) -> dict[str, list[tuple[float, float]]]:
    return {
        str(line.get_label()): [(float(x), float(y)) for x, y in line.get_xydata()]  # type: ignore[union-attr]
        for axes in figure.axes
        for line in axes.get_lines()
    }


def test_names_are_drawn_as_they_are_and_letters_that_no_font_has_as_escapes(
    figures: list[matplotlib.figure.Figure], tmp_path: Path
) -> None:
    draw_loss(ROWS, tmp_path / "loss.png", "评: $x_1$ _a_ é مراجعة", validation="验证 $\\frac{1$")
    draw_zero_shot([1, 10], {"评/b_c $x$": [0.1, 0.2]}, tmp_path / "curves.png", "评\\$")
    assert "\\u8bc4: $x_1$ _a_ é مراجعة" in texts(figures[0])
    assert "\\u9a8c\\u8bc1 $\\frac{1$" in texts(figures[0])
    assert {"\\u8bc4/b_c $x$", "\\u8bc4\\$"} <= {*texts(figures[1])}


def test_letters_come_from_any_installed_font_that_has_them(
    figures: list[matplotlib.figure.Figure], tmp_path: Path
) -> None:
    sans, stix = (get_font(fontManager.findfont(name)) for name in ("DejaVu Sans", "STIXGeneral"))
    letter = next(chr(code) for code in stix.get_charmap() if 0xA1 < code < 0xE000 and code not in sans.get_charmap())
    draw_loss(ROWS, tmp_path / "loss.png", f"a{letter}")
    [title] = [text for text in figures[0].findobj(Text) if text.get_text().startswith("a")]  # type: ignore[attr-defined]
    assert title.get_text() == f"a{letter}"
    assert title.get_fontfamily()[0] == "DejaVu Sans"
    assert len(title.get_fontfamily()) == 2


def test_a_long_title_keeps_its_end_and_fits(figures: list[matplotlib.figure.Figure], tmp_path: Path) -> None:
    draw_loss(ROWS, tmp_path / "loss.png", "评" * 200 + "-the-end")
    [title] = [text for text in texts(figures[0]) if "the-end" in text]
    assert title.startswith("...")
    assert max(map(len, title.split("\n"))) <= 72


@pytest.mark.parametrize(
    ("lm_coef", "expected"),
    [
        (0.5, ["training: L3 = L2 + 0.5 L1 (task + language-model loss), each logged step", "dev: L2 (task loss)"]),
        (0, ["training: task loss, each logged step", "dev: task loss"]),
    ],
)
def test_the_curves_of_finetuning_are_named_and_the_metric_has_its_axis(
    figures: list[matplotlib.figure.Figure], tmp_path: Path, lm_coef: float, expected: list[str]
) -> None:
    draw_loss(ROWS, tmp_path / "loss.png", "run", metric="accuracy", **_losses(lm_coef))
    figure = figures[0]
    left, right = figure.axes
    drawn = curves(figure)
    assert [*drawn] == [expected[0], "its moving average", expected[1], "dev accuracy (right axis)"]
    assert drawn[expected[1]] == [(30, 2.0), (60, 1.0)]
    assert drawn["dev accuracy (right axis)"] == [(30, 0.5), (60, 0.75)]
    draw_loss([{**row, "accuracy": 1.0} for row in ROWS], tmp_path / "perfect.png", "run", metric="accuracy")
    assert figures[1].axes[1].get_ylim()[1] == 1.0
    assert (left.get_xlabel(), right.get_ylabel()) == ("step", "dev accuracy")
    assert [line.get_marker() for line in (*left.get_lines()[2:], *right.get_lines())] == ["o", "s"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*drawn]
    if lm_coef == 0:
        assert not any("L1" in text or "L3" in text for text in texts(figure))


def test_a_step_that_was_logged_twice_is_drawn_once(figures: list[matplotlib.figure.Figure], tmp_path: Path) -> None:
    again = {"step": 30, "loss": 1.5}
    draw_loss([*ROWS, again], tmp_path / "loss.png", "run", metric="f1")
    drawn = curves(figures[0])
    losses = [row["loss"] for row in (*ROWS[:2], again, *ROWS[3:])]
    assert drawn["training loss, each logged step"] == [*zip(range(10, 70, 10), losses, strict=True)]
    assert drawn["validation loss"] == [(30, 2.0), (60, 1.0)]
    assert len(figures[0].axes) == 1  # f1 is undefined throughout
