"""What ``hs-stream tools new`` writes: a tool that works, its test and its README, for each base class.

``${name}`` and ``${kind}`` (the class) are filled in. A template is a small, complete example of its base class: its
author changes the docstring, the parameters and one method.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import Final

__all__ = ["TEMPLATES", "ToolTemplate"]


@dataclass(frozen=True, slots=True)
class ToolTemplate:
    """One base class. ``parameters`` and ``inputs`` are those of the example, ``expected`` is what it gives."""

    base: str
    imports: str
    summary: str
    body: str
    parameters: str
    inputs: str
    expected: str
    usage: str

    def files(self, name: str) -> dict[str, str]:
        """File names and their texts."""
        words = {
            "name": name,
            "kind": "".join(word.capitalize() for word in name.split("_")),
            "base": self.base,
            "imports": self.imports,
            "summary": self.summary,
            "body": self.body.strip("\n"),
            "parameters": self.parameters,
            "inputs": self.inputs,
            "expected": self.expected,
            "usage": self.usage,
        }
        # The body has names to be filled in, too.
        filled = {key: Template(text).substitute(words) for key, text in words.items()}
        return {
            f"{name}.py": _TOOL.substitute(filled),
            f"test_{name}.py": _TEST.substitute(filled),
            "README.md": _README.substitute(filled),
        }


_TOOL: Final = Template('''\
"""The tool ${name}."""

from __future__ import annotations

${imports}


@dataclass(frozen=True, kw_only=True)
class ${kind}(${base}):
    """${summary}

${body}
''')

_TEST: Final = Template('''\
"""${name}: an example worked out by hand, and the laws of tools."""

from __future__ import annotations

from pathlib import Path

from hs_stream.core.batch import Batch
from hs_stream.core.time import TimeInterval
from hs_stream.plugins import default_registry
from hs_stream.testing.check_tool import check_tool

TOOL = default_registry([Path(__file__).parent]).resolve("${name}")


def test_an_example_worked_out_by_hand() -> None:
    inputs = ${inputs}
    found = TOOL.build(${parameters}).evaluate(TimeInterval(0, 10_000), inputs)
    assert list(found) == ${expected}


def test_the_laws_of_tools() -> None:
    check_tool(TOOL)
''')

_README: Final = Template("""\
# ${name}

${summary}

| file | what it is |
|---|---|
| `${name}.py` | the tool: parameters, and one method; the engine owns the loop over time |
| `test_${name}.py` | an example worked out by hand, and the laws of tools |

`python -m pytest test_${name}.py` runs the test; `pip install 'hs_stream[testing]'` installs what that needs.

To use it, name this folder in the settings:

```toml
[tools]
paths = ["path/to/this/folder"]
```

and the tool in a workflow:

```yaml
nodes:
  result: ${usage}
```

`hs-stream tools show ${name}` shows its parameters, `hs-stream tools check ${name}` tries the laws.

It is version 0.1.0. Major 0 is for development; raise it to 1.0.0 when results rest on it. From then on, a version
whose results or parameters differ is a class of its own, with a higher version, beside the old one.
""")

_COMMON: Final = """\
from dataclasses import dataclass

from hs_stream.core.tool import ${base}
from hs_stream.core.value import Value"""
_WITH_SKIP: Final = _COMMON.replace("import ${base}", "import SKIP, ${base}")
_WITH_SEQUENCE: Final = f"from collections.abc import Sequence\n{_WITH_SKIP}"

_MAP: Final = ToolTemplate(
    base="MapTool",
    imports=_WITH_SKIP,
    summary="Each number times ``factor``.",
    body='''
    ``factor``: without a unit. Output: float, at each instance of the input; none where the value is missing (null).
    """

    name = "${name}"
    version = "0.1.0"
    takes = "number"
    samples = ({}, {"factor": 2.5})
    factor: float = 1.0

    def map(self, value: Value) -> Value:
        """The output for one value, or SKIP for none."""
        return SKIP if value is None else value * self.factor''',
    parameters='{"factor": 2.0}',
    inputs="[Batch.of([(1000, 1.5), (2000, None), (3000, -4)])]",
    expected="[(1000, 3.0), (3000, -8.0)]",
    usage="{tool: ${name}@^0.1, from: SOURCE, with: {factor: 2.5}}",
)

_WINDOW: Final = ToolTemplate(
    base="WindowTool",
    imports=_WITH_SKIP.replace(
        "from hs_stream.core.tool", "from hs_stream.core.batch import Batch\nfrom hs_stream.core.tool"
    ),
    summary="The difference between the highest and the lowest number in ``(t - width, t]``.",
    body='''
    ``width`` and ``every`` are those of every window. ``at_least``: no output below it, in the unit of the input.
    Output: float. Missing values (null, NaN) are ignored; a window without a number has no output.
    """

    name = "${name}"
    version = "0.1.0"
    takes = "number"
    samples = ({"width": "10s"}, {"width": "1m", "every": "10s"}, {"width": "10s", "at_least": 0.5})
    at_least: float = 0.0

    def reduce(self, window: Batch, time: int) -> Value:
        """The output at ``time`` for the instances of its window, or SKIP for none."""
        numbers = window.numbers()
        numbers = numbers[numbers == numbers]
        if not len(numbers):
            return SKIP
        difference = float(numbers.max() - numbers.min())
        return difference if difference >= self.at_least else SKIP''',
    parameters='{"width": "2s", "at_least": 1.0}',
    inputs="[Batch.of([(1000, 1.5), (2000, 4.0), (3000, 3.5), (4000, 3.0)])]",
    expected="[(2000, 2.5)]",
    usage="{tool: ${name}@^0.1, from: SOURCE, with: {width: 5m, every: 1m}}",
)

_PREVIOUS: Final = ToolTemplate(
    base="PreviousTool",
    imports=_WITH_SEQUENCE,
    summary="The change from the previous number to this one.",
    body='''
    ``at_least``: no output for a smaller change, in the unit of the input. Output: number, at each instance but the
    first; none where this or the previous value is missing (null).
    """

    name = "${name}"
    version = "0.1.0"
    takes = "number"
    samples = ({}, {"at_least": 1.0})
    count = 2
    at_least: float = 0.0

    def combine(self, previous: Sequence[tuple[int, Value]], time: int) -> Value:
        """The output at ``time`` for the last ``count`` instances, oldest first, or SKIP for none."""
        values = [value for _, value in previous]
        if len(values) < 2 or None in values:
            return SKIP
        change = values[1] - values[0]
        return change if abs(change) >= self.at_least else SKIP''',
    parameters='{"at_least": 1.0}',
    inputs="[Batch.of([(1000, 1.5), (2000, 4.0), (3000, 3.5), (4000, None), (5000, 7)])]",
    expected="[(2000, 2.5)]",
    usage="{tool: ${name}@^0.1, from: SOURCE, with: {at_least: 0.5}}",
)

_FOLD: Final = ToolTemplate(
    base="FoldTool",
    imports=_WITH_SKIP,
    summary="The highest number so far.",
    body='''
    ``start``: what it begins with, in the unit of the input. Output: float, at each instance whose value is a number;
    none where it is missing (null, NaN).
    """

    name = "${name}"
    version = "0.1.0"
    takes = "number"
    samples = ({}, {"start": -2.0})
    start: float = 0.0

    def initial(self) -> Value:
        """The state before the first instance: any value that JSON has."""
        return self.start

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The next state, and the output or SKIP for none."""
        if value is None or value != value:
            return state, SKIP
        highest = max(state, float(value))
        return highest, highest''',
    parameters="{}",
    inputs="[Batch.of([(1000, -1), (2000, 4.0), (3000, None), (4000, 3.5)])]",
    expected="[(1000, 0.0), (2000, 4.0), (4000, 4.0)]",
    usage="{tool: ${name}@^0.1, from: SOURCE, with: {start: 20}}",
)

_AGGREGATE: Final = ToolTemplate(
    base="AggregateTool",
    imports=_WITH_SEQUENCE,
    summary="The difference between the highest and the lowest number over a plate, at each time.",
    body='''
    ``at_least``: how many numbers there must be. Output: float, at each time at which a stream of the plate has an
    instance. Missing values (null, NaN) are ignored.
    """

    name = "${name}"
    version = "0.1.0"
    takes = "number"
    samples = ({}, {"at_least": 2})
    at_least: int = 1

    def aggregate(self, values: Sequence[Value], keys: Sequence[str]) -> Value:
        """The output for the values at one time, in the order of their plate values ``keys``, or SKIP for none."""
        numbers = [float(value) for value in values if value is not None and value == value]
        if not numbers or len(numbers) < self.at_least:
            return SKIP
        return max(numbers) - min(numbers)''',
    parameters='{"at_least": 2}',
    inputs="[Batch.of([(1000, 1.5), (2000, 4.0)]), Batch.of([(2000, 3.5), (3000, 1)])]",
    expected="[(2000, 0.5)]",
    usage="{tool: ${name}@^0.1, from: SOURCE, over: PLATE, with: {at_least: 2}}",
)

TEMPLATES: Final[dict[str, ToolTemplate]] = {
    "map": _MAP,
    "window": _WINDOW,
    "previous": _PREVIOUS,
    "fold": _FOLD,
    "aggregate": _AGGREGATE,
}
"""By kind."""
