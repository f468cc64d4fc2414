"""`python -m anyseek` is the `anyseek` command."""

from .cli import main

main()
