"""The tables, and what turns raw data into pairs."""
