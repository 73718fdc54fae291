"""``python -m mesm_cli``."""

from __future__ import annotations

from mesm_cli.entry import main

if __name__ == "__main__":
    main()
