"""anyseek.model."""
