"""The model inside the page computes what Python computes with the same weights, and its tokenizer gives equal ids."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generation_toy import TEXT
from gpt_toy import FAMILIES, shaken
from gptkit.inspect.inspection import Inspection, inspect_model
from gptkit.inspect.live import CODES, Live, as_stored, live_of, quantized
from gptkit.inspect.sidecar import tensors_of
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import load_model
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.kinds import train_tokenizer
from inspection_toy import made_inspection

Open = Callable[..., Any]
ROWS = """([ids, off]) => {
  const model = liveModel(data.live), rows = [];
  for (const id of ids) nextRow(model, rows, id, new Set(off));
  return rows.map(({ logits }) => [...logits]);
}"""
PARTS = """() => Object.fromEntries(["tokens", "hand", "path", "lens", "shares", "loss", "knock_out"].flatMap((part) =>
  Object.entries(data[part]).filter(([, array]) => array.shape).map(([name, { values }]) =>
    [`${part}.${name}`, [...values]])))"""
WEIGHTS = """() => upTo(LAYERS).map((layer) => upTo(HEADS).map((head) => upTo(LENGTH).map((query) => {
  const { weight } = attention(layer, head, query);
  return upTo(LENGTH).map((key) => (key > query ? 0 : weight(key)));
})))"""
ENCODE = "(texts) => { const { encode } = liveTokenizer(data.live.tokenizer); return texts.map(encode); }"
DECODE = "(ids) => { const { decode } = liveTokenizer(data.live.tokenizer); return ids.map(decode); }"
PRESS = """async (names) => {
  for (const name of names) {
    [...document.querySelectorAll("#live button")].find((button) => button.textContent === name).click();
    await new Promise((done) => setTimeout(done, 5));
  }
}"""
OTHER = "speak, and hear me proceed: any citizen"


def saved(folder: Path, spec: str = "bpe:300", **changes: Any) -> Path:
    tokenizer = train_tokenizer(spec, [TEXT])
    sizes = {"n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, **changes}
    shaken(GPTForCausalLM(GPTConfig(vocab_size=len(tokenizer) + 3, **sizes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def stored_in(found: Inspection, directory: Path, folder: Path) -> GPTForCausalLM:
    """Return the model with the page's weights, and save it."""
    assert isinstance(found.live, Live)
    model = as_stored(load_model(directory), found.live)
    model.save_pretrained(folder)
    for path in directory.glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return model


def test_codes_are_the_nearest() -> None:
    matrix = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    matrix[3] = 0
    codes, scale = quantized(matrix)
    assert np.abs(codes).max(axis=1).tolist() == [CODES, CODES, CODES, 0, CODES]
    assert (np.abs(codes * scale[:, None] - matrix) <= scale[:, None] * 0.5001).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_norm": True},
        {"pre_norm": False, "activation_function": "gelu"},
        {"pre_norm": True, "tie_word_embeddings": False, "n_inner": 48},
    ],
)
def test_logits_are_those_of_the_same_weights(changes: dict[str, Any], show: Open, tmp_path: Path) -> None:
    directory = saved(tmp_path / "model", **changes)
    found = inspect_model(directory, ["hear me speak"])
    model, page = stored_in(found, directory, tmp_path / "stored"), show(found)
    ids = [*range(100, 140)]
    with torch.no_grad():
        exact = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    assert np.abs(np.array(page.evaluate(ROWS, [ids, []])) - exact).max() < 1e-3
    head, width = model.transformer.h[1].attn.c_proj, 32 // 4
    hook = head.register_forward_pre_hook(
        lambda _, given: (torch.cat([given[0][..., :width], given[0][..., width:] * 0], -1),)
    )
    with torch.no_grad():
        exact = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    hook.remove()
    assert np.abs(np.array(page.evaluate(ROWS, [ids, ["1.1", "1.2", "1.3"]])) - exact).max() < 1e-3


@pytest.mark.parametrize("spec", ["bpe:300", "char"])
@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_every_view_follows_the_text(pre_norm: bool, spec: str, show: Open, tmp_path: Path) -> None:
    directory = saved(tmp_path / "model", spec, pre_norm=pre_norm)
    found = inspect_model(directory, ["hear me speak"])
    stored_in(found, directory, tmp_path / "stored")
    stored = inspect_model(tmp_path / "stored", [OTHER], head=(found.hand.layer, found.hand.head))
    assert stored.knock_out is not None
    exact = tensors_of(stored) | {
        "knock_out.changes": stored.knock_out.changes,
        "knock_out.totals": stored.knock_out.totals,
    }
    page = show(found)
    page.get_by_label("Text of the live model").fill(OTHER)
    page.get_by_text("The views show the copy").wait_for()
    page.wait_for_function("() => data.knock_out")
    parts = page.evaluate(PARTS)
    assert len(parts) > 25
    for name, values in parts.items():
        expected = exact[name].astype(float).ravel()
        if "ids" in name or "rank" in name or "kept" in name:  # which rounding may exchange
            assert np.mean(np.array(values) != expected) < 0.01, name
        else:
            assert np.abs(np.array(values) - expected).max() < 2e-3 * max(1, np.abs(expected).max()), name
    weights = page.evaluate(WEIGHTS)
    assert np.abs(np.array(weights) - exact["attention.weights"]).max() < 1e-3


def test_live(show: Open, tmp_path: Path) -> None:
    """The greedy continuation, a head switched off, and the way back, as a person does it."""
    directory = saved(tmp_path / "model")
    found = inspect_model(directory, ["hear me speak"])
    model, tokenizer = stored_in(found, directory, tmp_path / "stored"), train_tokenizer("bpe:300", [TEXT])
    page = show(found)
    view, text = page.locator("#live"), page.get_by_label("Text of the live model")
    heading = page.locator(".facts").inner_text()
    text.fill("hear me")
    view.get_by_text("The views show the copy").wait_for()
    ids = [tokenizer.eos_token_id, *tokenizer.encode("hear me")]
    view.get_by_label("top-k").fill("1")
    view.get_by_role("button", name="Next token").click()
    expected = model.generate(torch.tensor([ids]), max_new_tokens=1, do_sample=False)[0].tolist()
    page.wait_for_function("length => LENGTH === length", arg=len(expected))
    assert text.input_value() == tokenizer.decode(expected[1:], clean_up_tokenization_spaces=False)
    assert page.locator("#tokens tbody").first.locator("tr").count() == len(expected)
    before = page.evaluate("data.loss.nll.values[1]")
    view.get_by_role("button", name="1.2").click()
    view.get_by_text("without 1 head").wait_for()
    assert view.get_by_role("button", name="1.2").get_attribute("aria-pressed") == "false"
    assert page.evaluate("data.shares.heads.at(1, 2, 1)") == 0
    assert abs(page.evaluate("data.loss.nll.values[1]") - before) > 1e-4
    view.get_by_role("button", name="Back to the page's text").click()
    assert page.locator(".facts").inner_text() == heading
    assert text.input_value() == "hear me speak"


def test_a_continuation_can_be_stopped_and_undone(show: Open, tmp_path: Path) -> None:
    page = show(inspect_model(saved(tmp_path / "model"), ["hear me speak"]))
    length, text = page.evaluate("LENGTH"), page.get_by_label("Text of the live model")
    page.evaluate(PRESS, ["Continue by 20 tokens", "Back to the page's text"])
    page.wait_for_timeout(500)
    assert text.input_value() == "hear me speak"
    assert page.evaluate("[data.isLive ?? false, LENGTH]") == [False, length]
    page.evaluate(PRESS, ["Continue by 20 tokens", "Stop"])
    page.wait_for_function("() => data.isLive && data.knock_out")
    assert page.evaluate("LENGTH") < length + 20


def test_the_last_position_is_the_end(show: Open, tmp_path: Path) -> None:
    page = show(inspect_model(saved(tmp_path / "model"), ["hear me speak"]))
    text = page.get_by_label("Text of the live model")
    text.fill("hear me speak " * 20)
    page.locator("#live").get_by_text("reads at most 40 tokens").wait_for()
    page.locator("#live tr.choice").first.click()
    page.wait_for_timeout(300)
    assert text.input_value() == "hear me speak " * 20
    assert page.evaluate("LENGTH") == 40
    assert page.evaluate("data.loss.nll.values.subarray(0, 39).every(Number.isFinite)")


def test_what_cannot_run_in_the_page_is_said(show: Open) -> None:
    view = show(made_inspection()).locator("#live")
    assert view.locator("textarea").count() == 0
    assert "No live model: it is a toy." in view.inner_text()


def test_obstacles(tmp_path: Path) -> None:
    model, own = load_model(saved(tmp_path / "model")), train_tokenizer("bpe:300", [TEXT])
    assert isinstance(live_of(model, own), Live)
    assert "ftfy" in str(live_of(model, GPT1Tokenizer({"<unk>": 0, "\n</w>": 1}, [])))
    own.add_tokens(["hear me"])
    assert "not this model's" in str(live_of(model, own))
    large = GPTForCausalLM(GPTConfig(vocab_size=303, n_embd=512, n_layer=2, n_head=4))
    assert f"{large.num_parameters() * 4 / 3e6:.1f} MB of the page, of at most 7 MB" in str(
        live_of(large, train_tokenizer("bpe:300", [TEXT]))
    )


LETTERS = ["a", "Z", "é", "ß", "ж", "中", "日", "ア", "ｱ", "ا", "ʰ", "ǅ", "\ua7cb", "\U000105c0"]
NUMBERS_AND_SPACES = [
    "1",
    "٣",
    "½",
    "Ⅷ",
    "\U00010d40",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\xa0",
    "\u3000",
    "\u0085",
    "\x1c",
]
SIGNS = [
    "'s",
    "'S",
    "’t",
    "'ll",
    ".",
    "…",
    "_",
    "\u0301",
    "😀",
    "👩\u200d🚀",
    "\0",
    "\ufeff",
    "<|endoftext|>",
    "\U0010ffff",
]


@pytest.mark.parametrize("spec", ["bpe:400", "char"])
def test_ids_are_equal_on_random_strings(spec: str, show: Open, tmp_path: Path) -> None:
    directory, draw = saved(tmp_path / "model", spec), random.Random(0)
    anything = [chr(draw.choice([draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)])) for _ in range(3000)]
    kinds = [[*LETTERS, *NUMBERS_AND_SPACES, *SIGNS], TEXT.split(), anything]
    texts = ["".join(draw.choices(draw.choice(kinds), k=draw.randrange(1, 20))) for _ in range(10_000)]
    page, tokenizer = show(inspect_model(directory, ["hear me speak"])), train_tokenizer(spec, [TEXT])
    ids = page.evaluate(ENCODE, texts)
    expected = [ids.tolist() for ids in encode_pieces(tokenizer, texts)]
    assert [text for text, one, other in zip(texts, ids, expected, strict=True) if one != other] == []
    decoded = page.evaluate(DECODE, ids)
    assert decoded == [tokenizer.decode(each, clean_up_tokenization_spaces=False) for each in expected]
