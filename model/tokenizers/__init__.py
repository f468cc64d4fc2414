"""anyseek.model.tokenizers."""
