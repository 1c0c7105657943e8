"""Model directories read without torch or transformers: where they lie, their sizes, and their weights as arrays."""
