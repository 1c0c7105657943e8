"""Errors in the options of `gptkit convert`, found before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path

from gptkit.convert.options import ConvertOptions
from gptkit.model_files import source_directory
from gptkit.system.files import require_free
from gptkit.system.run_layout import is_unfinished
from gptkit.text.tokenizers.kinds import check_tokenizer


def check(options: ConvertOptions) -> None:
    """Raise UsageError or InputError for options that name what is not there, or is in the way."""
    require_free(options.destination, str(options.destination))
    source = options.source
    if not os.path.isfile(source) and not source.startswith("hf:") and not is_unfinished(Path(source)):
        source_directory(source)
    if options.tokenizer is not None:
        check_tokenizer(options.tokenizer)
