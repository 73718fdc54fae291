"""Training losses: small named functions, listed in one table (table.py)."""
