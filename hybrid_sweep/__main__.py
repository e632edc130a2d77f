"""`python -m hybrid_sweep` is `hybrid-sweep`."""

from hybrid_sweep.cli import main

main()
