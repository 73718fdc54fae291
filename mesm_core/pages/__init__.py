"""Self-contained web pages: no network, no scripts, light and dark, narrow and wide."""
