"""Experiments: design, assignment, analysis. Never imports torch."""
