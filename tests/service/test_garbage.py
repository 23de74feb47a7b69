"""What a generation leaves behind is freed when the next one begins, and what stays is not looked through."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import gc, weakref
from hs_stream.service.garbage import settle

class Engine:
    def __init__(self):
        self.me = self

first, kept = Engine(), Engine()
settle()
assert gc.get_freeze_count() > 1000
seen = weakref.ref(first)
del first
gc.collect()
assert seen() is not None, "what is frozen is looked through"
settle()
assert seen() is None and kept.me is kept
"""


def test_what_is_left_of_a_round_is_freed_by_the_next() -> None:
    """In a process of its own: it is about the whole process."""
    subprocess.run([sys.executable, "-c", CHECK], check=True)
