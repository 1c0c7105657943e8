"""Pre-training put together: its inputs, its objective and its report; the loop itself is in gptkit.training."""
