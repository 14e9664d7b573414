"""Runs the command as ``python -m stiqueue``."""

from __future__ import annotations

from stiqueue.cli import main

if __name__ == "__main__":
    main()
