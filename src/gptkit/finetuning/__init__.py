"""Fine-tuning: from labelled examples to a trained head, with the auxiliary language-model loss of GPT-1."""
