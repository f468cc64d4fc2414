"""anyseek.storage.migrations."""
