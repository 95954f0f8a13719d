"""`python -m lmx_core` is `lmx`."""

from lmx_core.cli import main

main()
