"""How good a model is, by measures that the literature defines."""
