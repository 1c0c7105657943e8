"""What makes a GPT: its sizes, where it normalises, and how its weights start."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from gptkit.model_files.shape import HEAD_FIELDS, GPTShape

LABEL_FIELDS = ("id2label", "label2id", "problem_type", "architectures")


@strict
class GPTConfig(GPTShape, PreTrainedConfig):
    """The shape of a GPT-1 or GPT-2 model; what is left out is GPT-2's.

    `pre_norm=False` is GPT-1: layer norms after the residual sums, none at the end, and no scaled residual projections.
    `n_inner=None` means 4 * n_embd. `position_initializer_range=None` means what the family's own code draws positions
    with: 0.01 for GPT-2, `initializer_range` for GPT-1. `activation_function` is "gelu_new" (OpenAI's tanh form) or
    "gelu" (the erf form, which nanoGPT trains with). Token ids are None until a tokenizer gives them. `task`, `format`
    and the ids of start, delimiter and extract belong to a fine-tuned model; without a `format` nobody saves them.

    Raises `StrictDataclassError` (huggingface_hub) for a wrong type or an impossible size.
    """

    model_type = "gptkit"
    auto_map: ClassVar[dict[str, str]] = {}  # TRL reads it; never written, and refused in a config.json
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "classifier_loss", "lm_loss"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    def __post_init__(self, **kwargs: Any) -> None:
        if self.position_initializer_range is None:
            self.position_initializer_range = 0.01 if self.pre_norm else self.initializer_range
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    def without_head(self) -> "GPTConfig":
        """Return the configuration of the language model alone."""
        values = {key: value for key, value in self.to_diff_dict().items() if key not in (*HEAD_FIELDS, *LABEL_FIELDS)}
        return GPTConfig(**values)

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what config.json says: of a model that is not fine-tuned, nothing about a head."""
        values: dict[str, Any] = super().to_diff_dict()
        if self.format is None:
            values = {key: value for key, value in values.items() if key not in HEAD_FIELDS}
        return values
