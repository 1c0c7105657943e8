"""The rows of the table of evaluations: each with its protocols, pure functions over log-probabilities or texts."""
