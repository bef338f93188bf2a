"""Scorers, the traffic splitter and the event log."""
