"""anyseek.model.training."""
