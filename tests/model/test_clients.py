"""Trainer, PEFT, pipelines and hand-written loops get from GPTForCausalLM what they get from GPT2LMHeadModel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    DataCollatorWithFlattening,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
    default_data_collator,
    pipeline,
)

from gpt_toy import FAMILIES, SIZES, ids, toy
from gptkit.convert.hf import to_hf
from gptkit.model.loading import save_model, set_special_tokens
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.kinds import train_tokenizer

families = pytest.mark.parametrize("pre_norm", FAMILIES)
attentions = pytest.mark.parametrize("attention", ["sdpa", "eager"])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
NO_DROPOUT = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}


def gpt2_twin(model: GPTForCausalLM) -> GPT2LMHeadModel:
    """Return transformers' own model with the same weights."""
    none = dict.fromkeys(("bos_token_id", "eos_token_id"))
    twin = GPT2LMHeadModel(GPT2Config(**SIZES, **none, **NO_DROPOUT))
    twin.loss_type = "ForCausalLM"  # as its loss is, or Trainer would count a prediction too many in each row
    twin.load_state_dict(to_hf(model.config, model.state_dict()))
    return twin.eval()


# --- labels ---


@pytest.mark.parametrize("with_shift", [False, True])
@pytest.mark.parametrize("count", [None, 40, torch.tensor(40)])
def test_labels_bring_the_loss_and_logits_of_gpt2(with_shift: bool, count: int | Tensor | None) -> None:
    model, input_ids = toy(), ids()
    labels = input_ids.masked_fill(input_ids % 3 == 0, -100)
    asked: dict[str, Any] = {"labels": labels, "num_items_in_batch": count}
    if with_shift:  # other targets than the labels', so that one can see which are used
        asked["shift_labels"] = input_ids.flip(-1)
    ours, theirs = model(input_ids, **asked), gpt2_twin(model)(input_ids, **asked)
    torch.testing.assert_close(ours.loss, theirs.loss, **CLOSE)
    torch.testing.assert_close(ours.logits, theirs.logits, **CLOSE)
    assert ours.keys() == theirs.keys()


def rows(number: int = 6, length: int = 12) -> Dataset:
    return Dataset.from_list([{"input_ids": row, "labels": row} for row in ids(number, length).tolist()])


def trainer(model: Any, folder: Path, **options: Any) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        dataloader_pin_memory=False,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=4,
        **options,
    )
    data = {"train_dataset": rows(), "eval_dataset": rows(), "data_collator": default_data_collator}
    return Trainer(model=model, args=arguments, **data)  # type: ignore[arg-type]


def test_trainer_trains_evaluates_and_predicts_as_with_gpt2(tmp_path: Path) -> None:
    losses, logits = [], []
    model = toy(**NO_DROPOUT)
    for one in (gpt2_twin(model), model):
        client = trainer(one, tmp_path, max_steps=3, gradient_accumulation_steps=2, learning_rate=1e-3)
        before = client.evaluate()["eval_loss"]
        trained = client.train().training_loss
        losses.append([before, trained, client.evaluate()["eval_loss"]])
        found = client.predict(rows())
        assert found.predictions.shape == (6, 12, SIZES["vocab_size"])
        logits.append(torch.from_numpy(found.predictions))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[1][2] < losses[1][0]
    torch.testing.assert_close(logits[1], logits[0], atol=1e-3, rtol=1e-3)


def test_trainer_trains_with_gradient_checkpointing_and_saves_what_loads(tmp_path: Path) -> None:
    client = trainer(toy(**NO_DROPOUT), tmp_path, max_steps=1, activation_checkpointing=True)
    client.train()
    client.save_model(str(tmp_path / "saved"))
    loaded = GPTForCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded.transformer.wpe.weight, client.model.transformer.wpe.weight)


@families
def test_trainer_smooths_the_labels_of_the_next_tokens(pre_norm: bool, tmp_path: Path) -> None:
    model, input_ids, smoothing = toy(pre_norm), ids(), 0.1
    client = trainer(model, tmp_path, label_smoothing_factor=smoothing)
    log_p = model(input_ids).logits[:, :-1].log_softmax(-1)
    nll = -log_p.gather(-1, input_ids[:, 1:, None]).mean()
    expected = (1 - smoothing) * nll - smoothing * log_p.mean()
    found = client.compute_loss(model, {"input_ids": input_ids, "labels": input_ids})
    torch.testing.assert_close(found, expected, **CLOSE)


# --- packed documents ---

DOCUMENTS = [ids(1, length, seed)[0] for seed, length in enumerate((5, 8, 1, 6))]


def packed(documents: list[Tensor]) -> dict[str, Tensor]:
    positions = torch.cat([torch.arange(len(one)) for one in documents])
    return {"input_ids": torch.cat(documents)[None], "position_ids": positions[None]}


@families
@attentions
@pytest.mark.parametrize("use_cache", [None, False])
def test_packed_documents_do_not_read_each_other(pre_norm: bool, attention: str, use_cache: bool | None) -> None:
    model = toy(pre_norm)
    model.set_attn_implementation(attention)
    alone = torch.cat([model(one[None]).logits[0] for one in DOCUMENTS])
    together = model(**packed(DOCUMENTS), use_cache=use_cache).logits[0]
    torch.testing.assert_close(together, alone, **CLOSE)
    two_rows = [packed(DOCUMENTS), packed(DOCUMENTS[::-1])]
    batch = {name: torch.cat([row[name] for row in two_rows]) for name in two_rows[0]}
    backwards = torch.cat([model(one[None]).logits[0] for one in DOCUMENTS[::-1]])
    torch.testing.assert_close(model(**batch).logits, torch.stack([alone, backwards]), **CLOSE)


@families
def test_the_flattening_collator_trains_on_the_loss_of_each_document(pre_norm: bool) -> None:
    model = toy(pre_norm, **NO_DROPOUT).train()
    flat = DataCollatorWithFlattening()([{"input_ids": one.tolist()} for one in DOCUMENTS])
    nll = [F.cross_entropy(model(one[None]).logits[0, :-1], one[1:], reduction="sum") for one in DOCUMENTS]
    expected = torch.stack(nll).sum() / sum(len(one) - 1 for one in DOCUMENTS)
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    for loss_only in (False, True):
        loss = model(**flat, loss_only=loss_only).loss
        torch.testing.assert_close(loss, expected, **CLOSE)
        for found, gradient in zip(torch.autograd.grad(loss, list(model.parameters())), wanted, strict=True):
            torch.testing.assert_close(found, gradient, **CLOSE)


@pytest.mark.parametrize(
    "more",
    [
        lambda inputs: {"attention_mask": torch.ones_like(inputs["input_ids"])},
        lambda inputs: {"past_key_values": DynamicCache()},
        lambda inputs: {"position_ids": inputs["position_ids"][0]},
        lambda inputs: {"position_ids": torch.arange(2, 22)[None]},
    ],
    ids=["a mask", "a cache", "one row of positions", "an offset"],
)
def test_documents_are_found_where_gpt2_finds_them(more: Callable[[Any], dict[str, Any]]) -> None:
    model, inputs = toy(), packed(DOCUMENTS)
    theirs = gpt2_twin(model)
    position_ids = more(inputs).get("position_ids", inputs["position_ids"])
    expected = theirs(**{**inputs, "use_cache": False, **more(inputs), "position_ids": position_ids.view(1, -1)})
    torch.testing.assert_close(model(**{**inputs, **more(inputs)}).logits, expected.logits, **CLOSE)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo, of lm_loss
def test_packed_documents_stay_apart_in_one_compiled_graph() -> None:
    model = toy(n_layer=1)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for documents in (DOCUMENTS, [torch.cat(DOCUMENTS)]):  # the same graph serves ordinary positions
        inputs = packed(documents)
        targets = inputs["input_ids"].roll(-1)
        for loss_only in (False, True):
            asked = {**inputs, "labels": targets, "use_cache": False, "loss_only": loss_only}
            torch.testing.assert_close(compiled(**asked).loss, model(**asked).loss, **CLOSE)


# --- the cache ---


@families
def test_a_hand_written_loop_remembers_its_prompt(pre_norm: bool) -> None:
    model, tokens = toy(pre_norm), ids(2, 4)
    output = model(tokens)
    for _ in range(6):
        token = output.logits[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, token], dim=1)
        output = model(token, past_key_values=output.past_key_values)
    torch.testing.assert_close(output.logits[:, -1], model(tokens).logits[:, -1], **CLOSE)
    model.config.use_cache = False
    assert model(tokens).past_key_values is None
    assert model.transformer(tokens, use_cache=True).past_key_values is not None


def test_generate_gives_gpt2s_continuations() -> None:
    model, prompts = toy(), ids(3, 5)
    theirs = gpt2_twin(model)
    for settings in ({}, {"num_beams": 3}, {"use_cache": False}, {"num_beams": 2, "num_return_sequences": 2}):
        asked: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, **settings}
        asked["attention_mask"] = torch.ones_like(prompts)
        assert model.generate(prompts, **asked).tolist() == theirs.generate(prompts, **asked).tolist()


@pytest.mark.parametrize("spec", ["char", "bpe:260"])
def test_a_saved_model_stops_at_the_end_of_text(spec: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(spec, ["hear me speak\n" * 5])
    model = toy(vocab_size=len(tokenizer), tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.eos_token_id] = model.transformer.ln_f.bias
    set_special_tokens(model, tokenizer)
    save_model(model, tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = GPTForCausalLM.from_pretrained(tmp_path)
    for config in (loaded.config, loaded.generation_config):
        assert config.bos_token_id == config.eos_token_id == tokenizer.eos_token_id
        assert config.pad_token_id is None
    assert loaded.generate(max_new_tokens=9, do_sample=False).tolist() == [[tokenizer.eos_token_id] * 2]
    write = pipeline("text-generation", model=str(tmp_path), device="cpu")
    assert write("hear", max_new_tokens=9, do_sample=False)[0]["generated_text"] == "hear"


# --- lm_head ---


def test_hooks_on_lm_head_change_the_loss() -> None:
    model, input_ids = toy(), ids()
    model.lm_head.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    uniform = torch.tensor(float(SIZES["vocab_size"])).log()
    torch.testing.assert_close(model(input_ids, labels=input_ids).loss, uniform)
    assert model(input_ids, labels=input_ids, loss_only=True).loss > uniform  # what the keyword says


@families
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters_of_peft_learn_are_saved_and_come_back(pre_norm: bool, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    input_ids = ids()
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["lm_head", "c_attn", "c_proj"], r=2)
    model = peft.get_peft_model(toy(pre_norm, **NO_DROPOUT), config)
    before = model(input_ids=input_ids, labels=input_ids).loss
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.05)
    for _ in range(2):  # the first step moves B alone, A starts when B is no longer zero
        optimizer.zero_grad()
        model(input_ids=input_ids, labels=input_ids).loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name
    after = model.eval()(input_ids=input_ids, labels=input_ids)
    assert after.loss < before
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    again = peft.PeftModel.from_pretrained(toy(pre_norm, **NO_DROPOUT), tmp_path)
    torch.testing.assert_close(again(input_ids=input_ids).logits, after.logits, **CLOSE)
    asked = {"input_ids": input_ids[:, :4], "max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    assert model.generate(**asked).tolist() == again.generate(**asked).tolist()
