"""An inspection of saved models of both families: language models, and each kind of fine-tuned model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fine_tuned_toy import FIELDS, SIZES, fine_tuned
from generation_toy import TEXT
from gpt_toy import FAMILIES, shaken
from gptkit.inspect.command import facts
from gptkit.inspect.inspection import inspect_model
from gptkit.inspect.sidecar import tensors_of, write_sidecar
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import load_model
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.scoring.encoder import Encoder
from gptkit.scoring.scorer import Scorer
from gptkit.tasks.given import example_of
from gptkit.tasks.heads import predictions_of, probabilities_of
from gptkit.tasks.table import EVALUATIONS, find_task
from gptkit.text.examples import Example
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.use.predictor import Predictor

SENTENCE = "before we proceed any further"


def language_model(folder: Path, pre_norm: bool) -> Path:
    tokenizer = train_tokenizer("bpe:300", [TEXT])
    config = GPTConfig(vocab_size=len(tokenizer) + 7, **SIZES, pre_norm=pre_norm)  # 7 rows of no token
    shaken(GPTForCausalLM(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_surprisals_sum_to_what_eval_sums(pre_norm: bool, tmp_path: Path) -> None:
    directory = language_model(tmp_path / "model", pre_norm)
    found = inspect_model(directory, [SENTENCE])
    (protocol,) = (each for each in EVALUATIONS["perplexity"].protocols if each.name == "documents")
    encoder = Encoder(train_tokenizer("bpe:300", [TEXT]), SIZES["n_positions"])
    examples = [Example((SENTENCE,), None, "", "0:0")]
    groups = protocol.requests(examples, encoder)
    scorer = Scorer(load_model(directory), device=torch.device("cpu"))
    items = protocol.items(examples, groups, scorer.score(groups), encoder)
    assert found.loss.total == pytest.approx(items.columns["nll"].sum(), abs=1e-4)
    assert len(found.tokens.ids) == 1 + items.columns["tokens"].sum()
    assert found.family == ("GPT-2" if pre_norm else "GPT-1")
    assert "".join(found.tokens.pieces[1:]) == SENTENCE


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_the_sidecar_has_every_number_exactly(pre_norm: bool, tmp_path: Path) -> None:
    found = inspect_model(language_model(tmp_path / "model", pre_norm), [SENTENCE], head=(1, 3))
    write_sidecar(found, tmp_path / "numbers.safetensors")
    saved, arrays = load_file(tmp_path / "numbers.safetensors"), tensors_of(found)
    assert saved.keys() == arrays.keys()
    for name, array in arrays.items():
        assert not np.isnan(array).any(), name
        np.testing.assert_array_equal(saved[name], array)
    assert {"attention.scores", "path.residual", "lens.kl", "shares.heads", "loss.nll", "hand.query"} <= saved.keys()
    assert (found.hand.layer, found.hand.head) == (1, 3)
    np.testing.assert_array_equal(
        found.path.residual[0], found.tokens.token_embedding + found.tokens.position_embedding
    )
    shown = {*found.tokens.ids.tolist(), *found.loss.top_ids.ravel().tolist(), *found.lens.top_ids.ravel().tolist()}
    assert shown <= found.vocabulary.keys()


def attentions(model: GPTForCausalLM, ids: list[int]) -> tuple[torch.Tensor, ...]:
    """Return transformers' own attention weights (1, head, query, key) of each layer."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found: tuple[torch.Tensor, ...] = model(torch.tensor([ids]), output_attentions=True).attentions
    return found


@pytest.mark.parametrize("pre_norm", FAMILIES)
@pytest.mark.parametrize("name", FIELDS)
def test_a_fine_tuned_model_reads_its_format_and_answers(name: str, pre_norm: bool, tmp_path: Path) -> None:
    directory, texts = fine_tuned(tmp_path / "model", name, pre_norm), FIELDS[name]
    found = inspect_model(directory, texts)
    answer = found.answer
    assert answer is not None
    tokenizer = train_tokenizer("bpe:300", [TEXT])
    start, delimiter, extract = (len(tokenizer) + n for n in range(3))
    ids = [tokenizer(text)["input_ids"] for text in texts]
    match len(texts):
        case 1:
            sequences = [[start, *ids[0], extract]]
        case 2:
            sequences = [[start, *ids[0], delimiter, *ids[1], extract], [start, *ids[1], delimiter, *ids[0], extract]]
            sequences = sequences[: 2 if find_task(name).format == "similarity" else 1]
        case _:
            sequences = [[start, *ids[0], *ids[1], delimiter, *choice, extract] for choice in ids[2:]]
    longest = max(map(len, sequences))
    rows = torch.tensor([[[*row, *[0] * (longest - len(row))] for row in sequences]])
    ends = torch.tensor([[len(row) - 1 for row in sequences]])
    model = load_model(directory, head=GPTDoubleHeadsModel)
    with torch.no_grad():
        logits = model(rows, ends).logits
    if name == "stsb":
        expected = logits.clip(0, 5)
    elif name == "stsb-soft":
        expected = (logits.softmax(-1) * torch.arange(6)).sum(-1)
    else:
        expected = logits[0].softmax(-1)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
    assert found.knock_out is not None
    np.testing.assert_allclose(found.knock_out.whole, found.loss.nll, atol=1e-5)
    assert found.answer_knock_out is not None
    if not answer.is_score:
        assert found.answer_knock_out.whole == pytest.approx(-np.log(answer.probabilities.max()), abs=1e-5)
    assert answer.is_score == name.startswith("stsb")
    tuned = found.fine_tuned
    assert tuned is not None
    assert [row[row >= 0].tolist() for row in tuned.ids] == sequences
    np.testing.assert_allclose(tuned.logits, logits.reshape(-1), atol=1e-5)
    language = load_model(directory, head=GPTDoubleHeadsModel).language_model()
    for number, sequence in enumerate(sequences):
        last = [layer[0, :, -1] for layer in attentions(language, sequence)]  # (head, position)
        np.testing.assert_allclose(tuned.attention[:, :, number, : len(sequence)], torch.stack(last), atol=1e-6)
    assert not tuned.attention[np.broadcast_to(tuned.ids < 0, tuned.attention.shape)].any()
    chosen = sequences[answer.chosen if name == "demo-cloze" else 0]
    assert found.tokens.ids.tolist() == chosen
    assert (found.tokens.pieces[0], found.tokens.pieces[-1]) == ("<start>", "<extract>")
    assert [text for _, text in found.fields] == list(texts)


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_a_longer_text_is_shown_from_its_beginning(pre_norm: bool, tmp_path: Path) -> None:
    directory = language_model(tmp_path / "model", pre_norm)
    whole, cut = (inspect_model(directory, [SENTENCE], max_tokens=most) for most in (128, 8))
    assert len(cut.tokens.ids) == 8 < len(whole.tokens.ids)
    np.testing.assert_array_equal(cut.tokens.ids, whole.tokens.ids[:8])
    np.testing.assert_allclose(cut.loss.nll[:-1], whole.loss.nll[:7], atol=1e-5)
    tuned = inspect_model(fine_tuned(tmp_path / "tuned", "rte", pre_norm), FIELDS["rte"], max_tokens=8)
    assert (len(tuned.tokens.ids), tuned.tokens.pieces[-1]) == (7, "<extract>")  # both fields keep as many


@pytest.mark.parametrize("name", FIELDS)
def test_the_scores_of_a_head_that_reads_mean_and_maximum_are_the_models(name: str, tmp_path: Path) -> None:
    found = inspect_model(fine_tuned(tmp_path / "model", name, head="concat"), FIELDS[name])
    task, tuned = find_task(name), found.fine_tuned
    assert tuned is not None
    predictor = Predictor(tmp_path / "model", task, device="cpu", batch_size=None)
    (answer,) = predictor.predict([example_of(task, FIELDS[name], print)])
    logits = tuned.logits[None]
    if "value" in answer:
        np.testing.assert_allclose(predictions_of(task, logits), [answer["value"]], atol=1e-5)
    else:
        np.testing.assert_allclose(probabilities_of(logits)[0], [*answer["probabilities"].values()], atol=1e-5)


def test_equal_choices_are_all_in_the_json(tmp_path: Path) -> None:
    found = inspect_model(fine_tuned(tmp_path / "model", "demo-cloze"), ("hear me", "", "speak", "speak"))
    assert facts(found)["answer"] == pytest.approx({"0": 0.5, "1": 0.5})


def test_what_is_shown_in_part_is_answered_whole(tmp_path: Path) -> None:
    directory = fine_tuned(tmp_path / "model", "rte")
    whole, cut = (inspect_model(directory, FIELDS["rte"], max_tokens=most).answer for most in (128, 8))
    assert whole is not None
    assert cut is not None
    np.testing.assert_array_equal(cut.probabilities, whole.probabilities)
