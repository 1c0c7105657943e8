"""Text: corpora, tokenizers, and the token blocks that models train on."""
