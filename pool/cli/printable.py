"""What the command line prints of others' words goes through here."""

from __future__ import annotations

from pool.printable import visible, visible_block

__all__ = ["visible", "visible_block"]
