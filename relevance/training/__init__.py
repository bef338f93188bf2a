"""Training stages, a module each; ``loop`` is what they share."""
