"""Errors in the options of `gptkit convert`, found before torch is imported."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from gptkit.convert.formats import FORMATS, require_sign
from gptkit.convert.options import ConvertOptions
from gptkit.errors import InputError, UsageError
from gptkit.model_files import ADAPTER_SETTINGS, source_directory
from gptkit.system.files import require_free
from gptkit.system.reading import require_regular
from gptkit.system.run_layout import is_unfinished
from gptkit.text.tokenizers.kinds import check_tokenizer


def check(options: ConvertOptions) -> None:
    """Raise UsageError or InputError for options that name what is not there, or is in the way."""
    require_free(options.destination, str(options.destination))
    target = FORMATS[options.to]
    if options.dtype is not None and options.dtype not in target.dtypes:
        fix = f"choose from {', '.join(target.dtypes)}"
        raise UsageError(f"{options.to} holds no {options.dtype}", where="--dtype", fix=fix)
    for package in target.packages:
        if importlib.util.find_spec(package) is None:
            message = f"{options.to} is written with the package {package}, which is not installed"
            raise InputError(message, where="--to", fix="pip install 'gptkit[export]'")
    source = options.source
    if os.path.isfile(source):
        require_sign(Path(source))
    elif not source.startswith("hf:") and not is_unfinished(Path(source)):
        require_sign(source_directory(source))
    if options.adapter is not None:
        require_regular(options.adapter / ADAPTER_SETTINGS, missing="pass the directory that PEFT saved (--adapter)")
    if options.tokenizer is not None:
        check_tokenizer(options.tokenizer)
