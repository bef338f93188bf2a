"""Drift and search health."""
