"""Text that a device chose, made fit for the eyes of a person.

A terminal obeys control characters: they move its cursor, change its title, and may type. Characters that nobody sees,
or that turn the text around, make one line look like another. All of them are shown as escapes.
"""

from __future__ import annotations

__all__ = ["visible", "visible_json"]


def visible(text: str, most: int | None = None, *, lines: bool = False) -> str:
    r"""``text`` with every character that is not printable as an escape, cut to ``most`` characters of it.

    ``lines``: ends of lines stay.

    >>> visible("\x1b[31mred\n")
    '\\x1b[31mred\\n'
    >>> visible("twenty", 3)
    'twe...'
    """
    cut = text if most is None or len(text) <= most else f"{text[:most]}..."
    if cut.isprintable():
        return cut
    return "".join(
        char if char.isprintable() or (lines and char == "\n") else char.encode("unicode_escape").decode("ascii")
        for char in cut
    )


def visible_json(text: str) -> str:
    r"""The JSON ``text``, which means the same, without characters that are not printable.

    >>> visible_json('["\x9b"]')
    '["\\u009b"]'
    """
    return "".join(char if char.isprintable() or char == "\n" else _unit_escapes(char) for char in text)


def _unit_escapes(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
