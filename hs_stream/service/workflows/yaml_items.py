"""YAML text as values that know their lines, JSON text as values that do not, and values as YAML text.

1. Only plain YAML 1.2: mappings with text keys, lists, text, numbers, booleans and null. No tags, no merge keys; what
   looks like a date is text.
2. A key that occurs twice in one mapping is an error, as are more than `MAX_ITEMS` keys and values, also after aliases
   are expanded, and more than `MAX_DEPTH` inside of each other. Both are noticed while the text is read, which costs
   about 0.1 ms for each: who may send a workflow cannot keep the service busy for long.
3. Every mistake is a `ConfigurationError` with path and line.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final

import orjson
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter

from hs_stream.core.errors import ConfigurationError, did_you_mean

__all__ = ["MAX_DEPTH", "MAX_ITEMS", "Item", "Reader", "read_json", "read_yaml", "write_yaml"]

MAX_ITEMS: Final = 20_000
MAX_DEPTH: Final = 40
_TAG: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Item:
    """One value: a scalar, a ``list`` of items or a ``dict`` of items.

    ``line`` counts from 1, ``None``: not from a file. ``key_line`` is the line of the key before it.
    """

    value: Any
    line: int | None = None
    key_line: int | None = None

    def plain(self) -> Any:
        """The value without lines."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    @classmethod
    def of(cls, value: Any) -> Item:
        """The item of a plain JSON-like value, without lines."""
        if isinstance(value, Mapping):
            return cls({str(key): cls.of(item) for key, item in value.items()})
        if isinstance(value, (list, tuple)):
            return cls([cls.of(item) for item in value])
        return cls(value)


def read_yaml(text: str, path: str) -> Item:
    """The one document in ``text``."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = functools.partial(_Composer, path)  # type: ignore[assignment]  # it only calls it
    try:
        node = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context or "it cannot be read").split())
        raise ConfigurationError(
            f"this is not YAML: {problem}",
            hint="check indentation, quotes and colons",
            path=path,
            line=mark.line + 1 if mark else None,
        ) from None
    except (YAMLError, RecursionError, ValueError) as error:
        problem = "it is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise ConfigurationError(f"this is not YAML: {problem}", path=path) from None
    if node is None:
        raise ConfigurationError("the file is empty", hint="begin with workflow: NAME", path=path, line=1)
    return _Converter(path, yaml).item(node, 0, None)


def read_json(text: str, path: str) -> Item:
    """The JSON document in ``text``. Its values have no lines."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"this is not JSON: {error.msg}", path=path, line=error.lineno) from None
    except RecursionError:
        raise ConfigurationError("this is not a workflow: it is nested too deep", path=path) from None
    left, level = MAX_ITEMS, [document]
    for _ in range(MAX_DEPTH + 1):
        left -= sum(len(one) + len(one) * isinstance(one, dict) for one in level if isinstance(one, (dict, list)))
        if left < 0:
            raise _too_many(path, None)
        parts = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [child for part in parts for child in part]
    if level:
        raise _too_deep(path, None)
    return Item.of(document)


def _too_many(path: str, line: int | None) -> ConfigurationError:
    hint = "split it into several workflows; check for aliases that repeat each other"
    return ConfigurationError(f"more than {MAX_ITEMS} keys and values", hint=hint, path=path, line=line)


def _too_deep(path: str, line: int | None) -> ConfigurationError:
    return ConfigurationError(f"nested more than {MAX_DEPTH} deep", path=path, line=line)


class _Composer(Composer):
    """Counts while it reads."""

    def __init__(self, path: str, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self._path = path
        self._count = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._count += 1
        if self._count > MAX_ITEMS or self._depth > MAX_DEPTH:
            line = self.parser.peek_event().start_mark.line + 1
            raise _too_many(self._path, line) if self._count > MAX_ITEMS else _too_deep(self._path, line)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Representer(SafeRepresenter):
    """Quotes text that begins with a sign: of that, ruamel.yaml writes some plainly and does not read it back."""

    def text(self, data: str) -> ScalarNode:
        return self.represent_scalar(f"{_TAG}str", data, None if data[:1].isalnum() else '"')

    def ignore_aliases(self, data: Any) -> bool:
        """Two equal parts are written twice, never as ``&id001``."""
        return True


_Representer.add_representer(str, _Representer.text)


def write_yaml(document: Mapping[str, Any]) -> str:
    """A JSON-like document as text that `read_yaml` reads back; the innermost mappings and lists are on one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # an attribute that its stubs call None
    yaml.width = 120
    yaml.allow_unicode = True
    text = StringIO()
    yaml.dump(document, text)
    return text.getvalue()


class _Converter:
    def __init__(self, path: str, yaml: YAML) -> None:
        self._path = path
        self._constructor = yaml.constructor
        self._left = MAX_ITEMS

    def item(self, node: Node, depth: int, key_line: int | None) -> Item:
        line = node.start_mark.line + 1
        self._left -= 1
        if self._left < 0:
            raise _too_many(self._path, line)
        if depth > MAX_DEPTH:
            raise _too_deep(self._path, line)
        if isinstance(node, (MappingNode, SequenceNode)) and str(node.tag) not in (f"{_TAG}map", f"{_TAG}seq"):
            raise self._tag_error(node, line)
        if isinstance(node, MappingNode):
            return Item(self._mapping(node, depth), line, key_line)
        if isinstance(node, SequenceNode):
            return Item([self.item(child, depth + 1, None) for child in node.value], line, key_line)
        return Item(self._scalar(node, line), line, key_line)

    def _mapping(self, node: MappingNode, depth: int) -> dict[str, Item]:
        result: dict[str, Item] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                raise self._error("a key is not text", line, "write the key as a word")
            if key.tag == f"{_TAG}merge":
                raise self._error("merge keys (<<) are not understood here", line, "write the keys out")
            if key.value in result:
                raise self._error(f"the key {key.value!r} occurs twice", line, "remove one of them")
            result[key.value] = self.item(child, depth + 1, line)
        return result

    def _scalar(self, node: Node, line: int) -> Any:
        if not isinstance(node, ScalarNode):
            raise self._error("this is neither a value, a list nor a mapping", line)
        kind = str(node.tag).removeprefix(_TAG)
        if kind in ("str", "timestamp", "value"):
            return str(node.value)
        if kind not in ("null", "bool", "int", "float"):
            raise self._tag_error(node, line)
        try:
            value = self._constructor.construct_object(node)
        except (ValueError, YAMLError):
            raise self._error(f"{node.value!r} is not a value", line, "put text into quotes") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(f"{node.value!r} is not a finite number", line)
        return value

    def _tag_error(self, node: Node, line: int) -> ConfigurationError:
        return self._error(f"the tag {str(node.tag).replace(_TAG, '!!')} is not allowed here", line, "remove it")

    def _error(self, message: str, line: int, hint: str = "") -> ConfigurationError:
        return ConfigurationError(message, hint=hint, path=self._path, line=line)


class Reader:
    """Checked access to items; every refusal is a `ConfigurationError` at the item's line."""

    def __init__(self, path: str) -> None:
        self.path = path

    def error(self, message: str, item: Item | int | None, hint: str = "") -> ConfigurationError:
        """At ``item``, or at a line."""
        line = item.line if isinstance(item, Item) else item
        return ConfigurationError(message, hint=hint, path=self.path, line=line)

    def mapping(self, item: Item, what: str, known: Iterable[str] | None = None) -> dict[str, Item]:
        """A mapping (null is an empty one) with keys out of ``known``, or with any keys."""
        if item.value is None:
            return {}
        if not isinstance(item.value, dict):
            raise self.error(f"{what} is not a mapping", item, "write key: value pairs")
        if known is not None:
            keys = list(known)
            for key, child in item.value.items():
                if key not in keys:
                    line = child.key_line or child.line
                    raise self.error(f"{what}: there is no key {key!r}", line, did_you_mean(key, keys, "the keys are"))
        return item.value

    def text(self, item: Item, what: str) -> str:
        """Non-empty text."""
        if not isinstance(item.value, str) or not item.value.strip():
            hint = "write a word, in quotes if it is a number"
            raise self.error(f"{what} is not text but {_show(item.value)}", item, hint)
        return item.value

    def texts(self, item: Item, what: str) -> tuple[str, ...]:
        """One text or a list of texts."""
        if isinstance(item.value, list):
            return tuple(self.text(child, what) for child in item.value)
        return (self.text(item, what),)

    def boolean(self, item: Item, what: str) -> bool:
        """``true`` or ``false``."""
        if not isinstance(item.value, bool):
            raise self.error(f"{what} is not true or false but {_show(item.value)}", item)
        return item.value

    def whole(self, item: Item, what: str) -> int:
        """A whole number."""
        if not isinstance(item.value, int) or isinstance(item.value, bool):
            raise self.error(f"{what} is not a whole number but {_show(item.value)}", item)
        return item.value


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None or value == "" else repr(value)
