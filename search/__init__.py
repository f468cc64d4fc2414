"""anyseek.search."""
