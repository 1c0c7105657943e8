"""GPT-1 and GPT-2 as transformers models; importing this registers them with the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from gptkit.model.configuration_gpt import CONFIGS, GPTConfig
from gptkit.model.model_types import CAUSAL, MODEL_TYPES
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer

for kind, config in CONFIGS.items():
    language_model = MODEL_TYPES[kind].language_model
    AutoConfig.register(kind, config, exist_ok=True)
    AutoModel.register(config, language_model.body_class, exist_ok=True)
    if kind in CAUSAL:
        AutoModelForCausalLM.register(config, language_model, exist_ok=True)
# A tokenizer_config.json names its class; where none does, it is the fast one.
AutoTokenizer.register(GPTConfig, PreTrainedTokenizerFast, slow_tokenizer_class=GPT1Tokenizer, exist_ok=True)
# Trainer smooths labels, and pipelines choose models, by the names of classes.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["gptkit"] = GPTForCausalLM.__name__
