"""anyseek.model.scenes."""
