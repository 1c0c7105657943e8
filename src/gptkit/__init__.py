"""gptkit: GPT-1 and GPT-2 as a command-line toolkit."""

__version__ = "0.1.0"
