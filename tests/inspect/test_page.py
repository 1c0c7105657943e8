"""The page as a file: what it holds, how exact its rounded numbers are, how large it is, and that text stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptkit.inspect.page import FILES, SCRIPTS, STYLE, rounded_attention, write_page
from gptkit.report.page import SHARED
from inspection_toy import made_inspection


def test_weights_and_scores_of_the_page_are_those_of_the_model_within_their_rounding(tmp_path: Path) -> None:
    attention = made_inspection(4, 4, 40, seed=1).attention
    rounded = rounded_attention(attention)
    rows, columns = np.tril_indices(40)
    surprise = rounded["scale"][..., rows] * rounded["codes"].astype(np.float32) ** 2
    errors = np.abs(np.exp(-surprise) - attention.weights[..., rows, columns])
    assert 0 < errors.max() < 0.01
    steps = 2 * np.sqrt(rounded["scale"][..., rows] * surprise) + rounded["scale"][..., rows]  # between neighbours
    exact = attention.scores[..., rows, columns]
    assert (np.abs(rounded["log_sum"][..., rows] - surprise - exact) <= steps / 2 + 1e-5).all()
    error = write_page(made_inspection(4, 4, 40, seed=1), tmp_path / "page.html")
    assert error == pytest.approx(errors.max(), rel=1e-6)


def test_a_head_that_is_sure_and_a_token_alone_are_exact() -> None:
    attention = made_inspection(length=9).attention
    scores = np.where(np.tri(9), np.float32(0), -np.inf) + np.where(np.eye(9), np.float32(80), np.float32(0))
    sure = replace(attention, scores=np.broadcast_to(scores, attention.scores.shape).astype(np.float32))
    rounded = rounded_attention(sure)
    assert set(np.unique(rounded["codes"])) == {0, 255}
    assert not rounded["scale"][..., 0].any()  # the first token sees itself alone


def test_a_page_of_gpt2_smalls_shape_has_at_most_3_megabytes(tmp_path: Path) -> None:
    inspection = made_inspection(12, 12, 128, 768)
    ids = np.arange(inspection.lens.top_ids.size).reshape(inspection.lens.top_ids.shape)  # all of them different
    vocabulary = inspection.vocabulary | {int(id): " longer" for id in ids.ravel()}
    inspection = replace(inspection, lens=replace(inspection.lens, top_ids=ids), vocabulary=vocabulary)
    write_page(inspection, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size <= 3_000_000


def test_the_policy_allows_the_pages_own_scripts_and_nothing_else(tmp_path: Path) -> None:
    write_page(made_inspection(), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]
    sources = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", page, re.DOTALL)
    assert len(sources) == len(SCRIPTS) + 1
    for source in sources:
        assert base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() in policy[1]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|\bsrc=|\bon\w+=\"", page)


def test_every_script_is_on_the_page_and_short_enough_to_read() -> None:
    files = {path.name: path for folder in (FILES, SHARED) for path in folder.iterdir()}
    assert set(files) == {*SCRIPTS, STYLE, "page.html"}
    assert all(len(files[name].read_text(encoding="utf-8").splitlines()) <= 160 for name in SCRIPTS)


def test_no_text_ends_the_element_that_holds_it(tmp_path: Path) -> None:
    write_page(made_inspection(pieces=("</script>", "<script>", " & <!--", "]]>")), tmp_path / "page.html")
    data = (tmp_path / "page.html").read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0]
    assert data.endswith("}")
    assert "<" not in data
    assert "\\u003c/script\\u003e" in data
