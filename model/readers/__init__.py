"""Readers: one file per kind of modality, from what people give to the values of `values.py`."""
