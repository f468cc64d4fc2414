"""One file per revision: `r<number>_<what>.py`, listed in `schema.REVISIONS`."""
