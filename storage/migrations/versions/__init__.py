"""anyseek.storage.migrations.versions."""
