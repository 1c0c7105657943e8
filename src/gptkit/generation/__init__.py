"""Text from a model: the rules that choose the next token, decoding with a cache, and text as it comes."""
