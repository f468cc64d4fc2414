"""anyseek.storage."""
