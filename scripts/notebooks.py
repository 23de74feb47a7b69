"""Makes the notebooks in examples/ from the scripts beside them, or says with ``--check`` which differ."""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook(script: Path) -> str:
    """The text of the notebook: the same cells without outputs, each with its number as its id."""
    made = jupytext.read(script, fmt="py:percent")
    made.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(made.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
    nbformat.validate(made)
    return str(nbformat.writes(made)) + "\n"


def main() -> int:
    """0 when every notebook is as its script."""
    different = []
    for script in sorted(EXAMPLES.glob("[0-9]*.py")):
        path, text = script.with_suffix(".ipynb"), notebook(script)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            different.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and different:
        sys.exit(f"not as their scripts: {', '.join(different)}. Run 'make notebooks'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
