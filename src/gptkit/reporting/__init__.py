"""What a run leaves for people to read: curves and a model card."""
