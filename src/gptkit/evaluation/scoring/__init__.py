"""Log-probabilities of token sequences: what is asked, how it is packed, and who answers."""
