"""What training minimises: small named functions behind one table (table.py)."""
