"""One file of commands per subject; ``querylift.cli`` names them."""
