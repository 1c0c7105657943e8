"""The card shows what comes from data and file names as text, and leaves nothing open."""

from __future__ import annotations

from pathlib import Path

from gptkit.report.model_card import model_card
from gptkit.report.plots import draw_loss
from gptkit.report.text import code_block, escape_markdown

HOSTILE = "a|b <script>alert(1)</script> [x](javascript:1) `c` *d*\n# e"


def card(**changes: object) -> str:
    facts = {
        "name": "run",
        "summary": "A model.",
        "parameters": 12345,
        "shape": "2 layers",
        "data": "text",
        "data_sha256": "ab" * 32,
        "licence": "unknown",
        "tokenizer": "char",
        "command": "gptkit pretrain",
        "measured": {"validation loss": "1.5"},
        "versions": {"gptkit": "0"},
        "sample": None,
    }
    return model_card(**(facts | changes))  # type: ignore[arg-type]


def test_hostile_names_stay_text_on_their_line() -> None:
    text = card(name=HOSTILE, data=HOSTILE, sample="```\n# out\n```", command="gptkit '```'")
    assert "<script" not in text
    assert "](javascript" not in text
    headings = [line for line in text.splitlines() if line.startswith("# ")]
    assert headings == [f"# {escape_markdown(HOSTILE)}", "# out"]  # the second one inside its fence
    assert code_block("```") == "````text\n```\n````"


def test_a_card_gives_data_hash_command_figures_and_licence() -> None:
    text = card()
    for fact in ("12,345", "ab" * 32, "gptkit pretrain", "1.5", "licence"):
        assert fact in text
    assert "More information needed" not in text


def test_the_same_curve_gives_the_same_picture(tmp_path: Path) -> None:
    rows = [{"step": 10 * i, "loss": 5.0 / i, "val_loss": 5.1 / i if i % 2 else None} for i in range(1, 9)]
    for name in ("a.png", "b.png"):
        draw_loss(rows, tmp_path / name, "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
