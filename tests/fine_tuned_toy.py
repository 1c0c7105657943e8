"""Tiny fine-tuned models in directories, one of each kind of task, and texts for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generation_toy import TEXT
from gpt_toy import shaken
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.tasks.heads import output_labels
from gptkit.tasks.table import find_task
from gptkit.text.tokenizers.kinds import train_tokenizer

SIZES = {"n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}
FIELDS = {
    "sst2": ("hear me speak",),
    "rte": ("hear me speak", "we proceed"),
    "mrpc": ("hear me speak", "we proceed any further"),
    "stsb": ("hear me speak", "we proceed any further"),
    "stsb-soft": ("hear me speak", "we proceed any further"),
    "demo-cloze": ("hear me", "", "speak", "we proceed further"),
}


def fine_tuned(folder: Path, name: str, pre_norm: bool = True, **changes: Any) -> Path:
    tokenizer, task = train_tokenizer("bpe:300", [TEXT]), find_task(name)
    size = len(tokenizer)
    markers = {"start_token_id": size, "delimiter_token_id": size + 1, "extract_token_id": size + 2}
    head = {"task": name, "format": task.format, "id2label": dict(enumerate(output_labels(task)))}
    config = GPTConfig(vocab_size=size + 3, **SIZES, **markers, **head, pre_norm=pre_norm, **changes)
    shaken(GPTDoubleHeadsModel(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
