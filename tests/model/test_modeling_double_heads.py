"""The two heads: losses worked out by hand, and logits that neither padding nor the order of texts can move."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from gpt_toy import FAMILIES, SIZES, shaken
from gptkit.model import modeling_double_heads as modeling
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.lm_loss import lm_loss
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import compile_blocks

families = pytest.mark.parametrize("pre_norm", FAMILIES)
CLOSE = {"atol": 1e-6, "rtol": 1e-6}
START, DELIMITER, EXTRACT = 58, 59, 60
NO_DROPOUT = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "classifier_dropout": 0.0}
Sequences = list[list[list[int]]]  # (example, sequence, length), ragged

ENTAILMENT: Sequences = [
    [[START, 3, 4, 5, DELIMITER, 6, EXTRACT]],
    [[START, 7, DELIMITER, 8, 9, 10, 11, 12, EXTRACT]],
]
SIMILARITY: Sequences = [
    [[START, 3, 4, 5, DELIMITER, 6, EXTRACT], [START, 6, DELIMITER, 3, 4, 5, EXTRACT]],
    [[START, 7, DELIMITER, 8, EXTRACT], [START, 8, DELIMITER, 7, EXTRACT]],
]
CHOICES: Sequences = [
    [
        [START, 3, 4, DELIMITER, 5, EXTRACT],
        [START, 3, 4, DELIMITER, 6, 7, 8, EXTRACT],
        [START, 3, 4, DELIMITER, EXTRACT],
    ],
    [[START, 9, DELIMITER, 1, EXTRACT], [START, 9, DELIMITER, 2, EXTRACT], [START, 9, DELIMITER, 1, 2, EXTRACT]],
]
CASES: dict[str, tuple[str, int, Sequences, Any]] = {  # format, outputs, sequences, labels
    "classification": ("classification", 3, [[[START, 5, 6, EXTRACT]], [[START, 9, 8, 7, 6, 5, EXTRACT]]], [2, 0]),
    "entailment": ("entailment", 3, ENTAILMENT, [1, 2]),
    "similarity": ("similarity", 2, SIMILARITY, [1, 0]),
    "regression": ("similarity", 1, SIMILARITY, [3.8, 0.0]),
    "soft classes": ("similarity", 6, SIMILARITY, [[0, 0, 0, 0.2, 0.8, 0], [1.0, 0, 0, 0, 0, 0]]),
    "multiple-choice": ("multiple-choice", 1, CHOICES, [1, 0]),
}
cases = pytest.mark.parametrize("case", CASES)


def double_heads(task_format: str, outputs: int, **changes: Any) -> GPTDoubleHeadsModel:
    """Return a two-layer toy in eval mode, its weights far from their start."""
    markers = {"start_token_id": START, "delimiter_token_id": DELIMITER, "extract_token_id": EXTRACT}
    labels = {index: f"label {index}" for index in range(outputs)}
    sizes = {**SIZES, "n_layer": 2, **markers, "task": "toy", "format": task_format, "id2label": labels, **changes}
    return shaken(GPTDoubleHeadsModel(GPTConfig(**sizes))).eval()


def batch(sequences: Sequences, labels: Any = None, *, pad: int = 0, length: int = 0) -> dict[str, Tensor]:
    """Return the model's inputs, padded on the right to the longest sequence or to `length`."""
    length = max(length, max(len(one) for example in sequences for one in example))
    padded = [[one + [pad] * (length - len(one)) for one in example] for example in sequences]
    tensors = {
        "input_ids": torch.tensor(padded),
        "extract": torch.tensor([[len(one) - 1 for one in example] for example in sequences]),
    }
    return tensors if labels is None else {**tensors, "labels": torch.tensor(labels)}


# --- the loss by hand: numpy in double precision, one sequence after the other ---


def hidden_by_hand(model: Any, tokens: list[int]) -> Any:
    """Return the last hidden states (length, n_embd) of one sequence."""
    weights = {name: tensor.double().numpy() for name, tensor in model.transformer.state_dict().items()}
    config, length = model.config, len(tokens)

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_epsilon)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Any, name: str) -> Any:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def attention(x: Any, name: str) -> Any:
        queries, keys, values = np.split(linear(x, f"{name}.c_attn"), 3, axis=-1)
        width = config.n_embd // config.n_head
        mixed = np.zeros_like(x)
        for head in range(config.n_head):
            part = slice(head * width, (head + 1) * width)
            for query in range(length):
                scores = keys[: query + 1, part] @ queries[query, part] / math.sqrt(width)
                shares = np.exp(scores - scores.max())
                mixed[query, part] = shares @ values[: query + 1, part] / shares.sum()
        return linear(mixed, f"{name}.c_proj")

    def mlp(x: Any, name: str) -> Any:
        inner = linear(x, f"{name}.c_fc")
        gelu = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        return linear(gelu, f"{name}.c_proj")

    x = weights["wte.weight"][tokens] + weights["wpe.weight"][:length]
    for layer in range(config.n_layer):
        name = f"h.{layer}"
        if config.pre_norm:
            x = x + attention(norm(x, f"{name}.ln_1"), f"{name}.attn")
            x = x + mlp(norm(x, f"{name}.ln_2"), f"{name}.mlp")
        else:
            x = norm(x + attention(x, f"{name}.attn"), f"{name}.ln_1")
            x = norm(x + mlp(x, f"{name}.mlp"), f"{name}.ln_2")
    return norm(x, "ln_f") if config.pre_norm else x


def log_softmax(logits: Any) -> Any:
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def losses_by_hand(model: Any, sequences: list[list[int]], label: Any) -> tuple[float, float]:
    """Return (L2, L1) of one example."""
    table = model.transformer.wte.weight.detach().double().numpy()
    weight, bias = model.score.weight.detach().double().numpy(), model.score.bias.detach().double().numpy()
    states = [hidden_by_hand(model, tokens) for tokens in sequences]
    means = [
        np.mean([-log_softmax(table @ state[t - 1])[tokens[t]] for t in range(1, len(tokens))])
        for state, tokens in zip(states, sequences, strict=True)
    ]
    read = [state[-1] for state in states]
    if model.config.head == "concat":
        read = [np.concatenate([state[-1], state.mean(0), state.max(0)]) for state in states]
    if model.config.format == "multiple-choice":
        logits = np.array([(weight @ one + bias)[0] for one in read])
    else:
        logits = weight @ sum(read) + bias
    if isinstance(label, int):
        return -log_softmax(logits)[label], float(np.mean(means))
    if isinstance(label, float):
        return (logits[0] - label) ** 2, float(np.mean(means))
    return -(np.array(label) * log_softmax(logits)).sum(), float(np.mean(means))


@families
@cases
@pytest.mark.parametrize("head", ["extract", "concat"])
def test_the_loss_is_the_one_worked_out_by_hand(head: str, case: str, pre_norm: bool) -> None:
    task_format, outputs, sequences, labels = CASES[case]
    model = double_heads(task_format, outputs, pre_norm=pre_norm, head=head)
    by_hand = [losses_by_hand(model, one, label) for one, label in zip(sequences, labels, strict=True)]
    classifier, auxiliary = np.mean(by_hand, axis=0)
    with torch.no_grad():
        for pad in (0, 7):
            output = model(**batch(sequences, labels, pad=pad, length=11), lm_coef=0.5)
            assert output.classifier_loss.item() == pytest.approx(classifier, rel=1e-6, abs=1e-6)
            assert output.lm_loss.item() == pytest.approx(auxiliary, rel=1e-6, abs=1e-6)
            assert output.loss.item() == pytest.approx(classifier + 0.5 * auxiliary, rel=1e-6, abs=1e-6)
        halved = model(**batch(sequences, labels), lm_coef=0.5, num_items_in_batch=torch.tensor(4.0))
    assert halved.loss.item() == pytest.approx((classifier + 0.5 * auxiliary) / 2, rel=1e-6)
    for trains in (False, True):  # each takes another way through the LM head
        with torch.set_grad_enabled(trains):
            alone = model(**batch(sequences, labels), lm_coef=0.5, loss_only=True)
        assert alone.logits is None
        assert alone.lm_loss.item() == pytest.approx(auxiliary, rel=1e-6)
        assert alone.loss.item() == pytest.approx(classifier + 0.5 * auxiliary, rel=1e-6)


def test_only_the_loss_alone_goes_round_the_lm_head() -> None:
    task_format, outputs, sequences, labels = CASES["multiple-choice"]
    model = double_heads(task_format, outputs)
    lengths: list[int] = []
    model.lm_head.register_forward_hook(lambda module, args, output: lengths.append(output.numel()))
    plain, alone = (model(**batch(sequences, labels), lm_coef=0.5, loss_only=asked) for asked in (False, True))
    assert len(lengths) == 1
    gradients = [torch.autograd.grad(output.loss, list(model.parameters())) for output in (plain, alone)]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_no_head_of_a_fine_tuned_model_asks_for_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.model.modeling_gpt.DynamicCache", lambda **_: pytest.fail("a cache was made"))
    task_format, outputs, sequences, labels = CASES["entailment"]
    double_heads(task_format, outputs)(**batch(sequences, labels), lm_coef=0.5)


def test_trainer_trains_evaluates_and_predicts(tmp_path: Path) -> None:
    task_format, outputs, sequences, labels = CASES["similarity"]
    whole = batch(sequences, labels)
    rows = Dataset.from_list([{name: tensor[row].tolist() for name, tensor in whole.items()} for row in range(2)] * 2)
    model = double_heads(task_format, outputs, **NO_DROPOUT)
    expected = model(**whole)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        dataloader_pin_memory=False,
        max_steps=2,
        learning_rate=1e-3,
    )
    client = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    found = client.predict(rows)
    np.testing.assert_allclose(found.predictions, expected.logits.detach().repeat(2, 1), rtol=1e-5, atol=1e-5)
    assert client.evaluate()["eval_loss"] == pytest.approx(expected.loss.item(), rel=1e-5)
    client.train()
    assert client.evaluate()["eval_loss"] < expected.loss.item()


def test_float_labels_of_another_shape_are_refused() -> None:
    model = double_heads("similarity", 2)
    with pytest.raises(ValueError, match=r"labels \(2,\) do not fit logits \(2, 2\)"):
        model(**batch(SIMILARITY, [1.0, 2.0]))


@cases
def test_without_the_auxiliary_loss_the_lm_head_is_not_touched(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task_format, outputs, sequences, labels = CASES[case]
    model = double_heads(task_format, outputs, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    monkeypatch.setattr(modeling, "lm_loss", lambda *_: pytest.fail("the LM head was run"))
    output = model(**batch(sequences, labels))
    output.loss.backward()
    assert output.lm_loss is None
    assert model.lm_head.weight.grad is None
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    logits, wanted = model(**batch(sequences)).logits, torch.tensor(labels)
    alone = ((logits - wanted) ** 2).mean() if case == "regression" else F.cross_entropy(logits, wanted)
    alone.backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, **CLOSE)


@pytest.mark.parametrize("tokens_per_chunk", [2, 100])
def test_weights_of_tokens_multiply_loss_and_gradients(tokens_per_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.model.lm_loss.CHUNK_ELEMENTS", {"cpu": tokens_per_chunk * 13})
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 8, generator=generator).requires_grad_()
    weight = torch.randn(13, 8, generator=generator).requires_grad_()
    targets, token_weights = torch.tensor([1, -100, 3, 12, 0]), torch.tensor([0.5, 3.0, 0.0, 1.0, 0.25])
    each = F.cross_entropy(hidden @ weight.T, targets, ignore_index=-100, reduction="none")
    expected = (each * token_weights).sum()
    loss = lm_loss(hidden, weight, targets, token_weights)
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(one, (hidden, weight)) for one in (loss, expected))
    torch.testing.assert_close(found, wanted, **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(lm_loss(hidden, weight, targets, token_weights), expected)


# --- what must not matter ---


@families
@pytest.mark.parametrize("case", ["similarity", "regression", "soft classes"])
def test_swapping_the_texts_leaves_the_logits_as_they_are(case: str, pre_norm: bool) -> None:
    task_format, outputs, sequences, _ = CASES[case]
    model = double_heads(task_format, outputs, pre_norm=pre_norm)
    swapped = [example[::-1] for example in sequences]
    assert torch.equal(model(**batch(sequences)).logits, model(**batch(swapped)).logits)


@families
@cases
def test_neither_padding_nor_its_length_changes_anything(case: str, pre_norm: bool) -> None:
    task_format, outputs, sequences, labels = CASES[case]
    model = double_heads(task_format, outputs, pre_norm=pre_norm)
    expected = model(**batch(sequences, labels), lm_coef=0.5)
    other = model(**batch(sequences, labels, pad=EXTRACT), lm_coef=0.5)
    longer = model(**batch(sequences, labels, pad=3, length=20), lm_coef=0.5)
    assert torch.equal(other.logits, expected.logits)
    assert torch.equal(other.loss, expected.loss)
    torch.testing.assert_close(longer.logits, expected.logits, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(longer.loss, expected.loss, atol=1e-5, rtol=1e-6)


# --- dropout ---


def test_choices_of_an_example_share_one_dropout_mask() -> None:
    model = double_heads("multiple-choice", 1, **{**NO_DROPOUT, "classifier_dropout": 0.5}).train()
    sequence = CHOICES[0][0]
    torch.manual_seed(0)
    logits = model(**batch([[sequence] * 3] * 4)).logits  # (example, choice)
    assert (logits == logits[:, :1]).all()
    assert len(logits[:, 0].unique()) == 4  # a mask for each example
    assert not torch.isin(logits[:, 0], model.eval()(**batch([[sequence]])).logits).any()


def test_the_classifiers_dropout_is_a_rate_of_its_own() -> None:
    model = double_heads("entailment", 3, classifier_dropout=0.3).train()
    model.set_dropout(0.0)
    assert model.classifier_dropout.p == 0.3
    first, second = (model(**batch(ENTAILMENT)).logits for _ in range(2))
    assert not torch.equal(first, second)


# --- precision and compiling ---


@families
@cases
def test_bf16_autocast_trains_towards_the_same(case: str, pre_norm: bool) -> None:
    task_format, outputs, sequences, labels = CASES[case]
    model = double_heads(task_format, outputs, pre_norm=pre_norm, **NO_DROPOUT).train()
    results = {}
    for bf16 in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model(**batch(sequences, labels), lm_coef=0.5)
        output.loss.backward()
        assert output.logits.dtype == output.loss.dtype == torch.float32
        results[bf16] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        results[bf16 * 2 + 2] = output.loss.detach()
    assert results[True].isfinite().all()
    assert (results[True] - results[False]).norm() < 0.1 * results[False].norm()
    torch.testing.assert_close(results[4], results[2], rtol=0.05, atol=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # dynamo looks at the gradient of whatever it traces
def test_compiled_blocks_give_the_same_gradients() -> None:
    gradients = []
    for compiled in (False, True):
        model = double_heads("multiple-choice", 1, **NO_DROPOUT).train()
        if compiled:
            compile_blocks(model)
        model(**batch(CHOICES, [1, 0]), lm_coef=0.5, loss_only=True).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_blocks_compiled_for_any_shape_are_compiled_once() -> None:
    from torch._dynamo.utils import counters

    def graphs(lengths: tuple[int, ...]) -> int:
        torch._dynamo.reset()
        counters.clear()
        model = double_heads("entailment", 2, **NO_DROPOUT).train()
        compile_blocks(model, dynamic=True)
        for length in lengths:
            model(torch.zeros(length, 1, length, dtype=torch.int64), torch.full((length, 1), length - 1))
        return int(counters["stats"]["unique_graphs"])

    assert graphs((4,)) == graphs((4, 6, 5, 3, 7))
