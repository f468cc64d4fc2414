"""anyseek.indexer."""
