"""``python -m hs_stream.cli``."""

from __future__ import annotations

from hs_stream.cli.main import main

main()
