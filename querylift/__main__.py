"""``python -m querylift``."""

from querylift.cli import main

main()
