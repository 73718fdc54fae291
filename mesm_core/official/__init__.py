"""Reading what the paper's published implementation writes."""
