"""anyseek: search visual collections with any mix of modalities."""
