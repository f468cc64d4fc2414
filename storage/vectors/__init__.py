"""anyseek.storage.vectors."""
