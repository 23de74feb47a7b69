"""Where the settings come from: a TOML file, and ``HS_STREAM__SECTION__KEY`` in the environment, which wins.

1. The file is ``--config``, else ``$HS_STREAM_CONFIG``, else ``./config/hs-stream.toml`` or ``./hs-stream.toml`` where
   one exists, else there is none and everything has its default. Relative paths in it start at the working directory.
2. Every mistake is a `ConfigurationError` with the file, the line where it can be told, the key, and what to write;
   of what the environment sets, with the variable instead of the file.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import operator
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_origin

from pydantic import BaseModel, ValidationError

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.urls import redacted
from hs_stream.service.settings import ENVIRONMENT_PREFIX, Settings

__all__ = ["find_settings", "load_settings"]

_DEFAULT_FILES: Final = ("config/hs-stream.toml", "hs-stream.toml")


def find_settings(config: str | os.PathLike[str] | None = None) -> Path | None:
    """The settings file by rule 1, or ``None``. `ConfigurationError` when a named one does not exist."""
    named, by = (config, "--config") if config else (os.environ.get("HS_STREAM_CONFIG"), "$HS_STREAM_CONFIG")
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigurationError(f"{by} names {path}, which is no file", hint="name an existing settings file")
        return path
    return next((path for path in map(Path, _DEFAULT_FILES) if path.is_file()), None)


def load_settings(config: str | os.PathLike[str] | None = None, **overrides: Mapping[str, Any]) -> Settings:
    """The settings by the module's rules. ``overrides`` (section -> keys) win over the file, not over the environment.

    Raises `ConfigurationError`; only the first mistake is reported.
    """
    path = find_settings(config)
    text = ""
    content: dict[str, Any] = {}
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _bad_toml(str(path), error) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read it: {error}", path=str(path)) from None
    for section, keys in overrides.items():
        content[section] = {**content.get(section, {}), **keys}
    _check_environment()
    try:
        settings = Settings(**content)
    except ValidationError as error:
        raise _explain(error, str(path) if path else "", text) from None
    except Exception as error:
        if type(error).__name__ != "SettingsError":
            raise
        raise _bad_json(str(error)) from None
    if not settings.http.loopback and not (settings.http.token_file or settings.http.read_token_file):
        raise ConfigurationError(
            f"http.host = {settings.http.host!r} lets other machines in, but there is no http.token_file",
            hint='write host = "127.0.0.1", or name a token_file that holds a secret',
            **_blamed(("http", "host"), str(path) if path else "", text),
        )
    return settings


def _bad_toml(path: str, error: tomllib.TOMLDecodeError) -> ConfigurationError:
    match = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
    message = str(error)[: match.start()] if match else str(error)
    return ConfigurationError(
        f"this is not TOML: {message}",
        hint='text needs quotes, as in host = "127.0.0.1"',
        path=path,
        line=int(match.group(1)) if match else None,
    )


def _check_environment() -> None:
    sections = list(Settings.model_fields)
    for name in os.environ:
        if name.startswith(ENVIRONMENT_PREFIX):
            section = name[len(ENVIRONMENT_PREFIX) :].split("__")[0].lower()
            if section not in sections:
                raise ConfigurationError(
                    f"the environment variable {name} sets nothing", hint=_suggest(section, sections, "sections")
                )


def _explain(error: ValidationError, path: str, text: str) -> ConfigurationError:
    first = error.errors(include_url=False, include_input=False)[0]
    place, model = _place(tuple(map(str, first["loc"])))
    key = ".".join(place)
    message, hint = str(first["msg"]).removeprefix("Value error, "), ""
    if first["type"] == "extra_forbidden":
        message, hint = "there is no such key", _suggest(place[-1], list(model.model_fields), "keys")
    elif first["type"] == "literal_error":
        message = f"write one of {first['ctx']['expected'].replace(' or ', ', ')}"
    elif first["type"] in ("tuple_type", "string_type") and place[-1] in ("workflows", "paths"):
        message, hint = 'write a list of texts, such as ["first", "second"]', ""
    elif first["type"] == "model_type":
        message, hint = f"this is a section: write [{key}] and keys below it", ""
    elif place and place[-1] in getattr(model, "model_fields", {}):
        default = model.model_fields[place[-1]].default
        hint = "" if ": write" in message else f"the default is {redacted(str(default))!r}"
    return ConfigurationError(f"{key}: {message}", hint=hint, **_blamed(place, path, text, message))


def _place(found: tuple[str, ...]) -> tuple[tuple[str, ...], type[BaseModel]]:
    """The keys of ``found``, without what leads into a list or names a type that was tried; the last one's section."""
    model: type[BaseModel] = Settings
    for count, part in enumerate(found, start=1):
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return found[: count + (get_origin(annotation) is dict)], model
        if count < len(found):
            model = annotation
    return found, model


def _blamed(place: tuple[str, ...], path: str, text: str, message: str = "") -> dict[str, Any]:
    """Where the value at ``place`` comes from, as `ConfigurationError` is told."""
    if variable := _variable(place, message):
        return {"path": f"the environment variable {variable}"}
    return {"path": path, "line": _line_of(text, place)}


def _variable(place: tuple[str, ...], message: str) -> str:
    """The variable that sets what is at ``place``; empty where there is none.

    Or a key below it (of a section: one that ``message`` names); or a section around it, as JSON.
    """
    names = {name.upper(): name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX)}
    wanted = ENVIRONMENT_PREFIX + "__".join(place).upper()
    if wanted in names:
        return names[wanted]
    for upper, name in names.items():
        if upper.startswith(f"{wanted}__") and (len(place) > 1 or upper.rpartition("__")[2].lower() in message):
            return name
    for count in range(len(place) - 1, 0, -1):
        name = names.get(ENVIRONMENT_PREFIX + "__".join(place[:count]).upper(), "")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            functools.reduce(operator.getitem, place[count:], json.loads(os.environ.get(name, "")))
            return name
    return ""


def _bad_json(said: str) -> ConfigurationError:
    """A variable of a whole section, or of a table in it, is no JSON; pydantic says only of which section."""
    section = re.search(r'field "(\w+)"', said)
    start = ENVIRONMENT_PREFIX + (section.group(1).upper() if section else "")
    names = sorted(name for name in os.environ if name.upper().startswith(start) and not _is_json(os.environ[name]))
    return ConfigurationError(
        f"the environment variable {' or '.join(names)} is not JSON, and sets more than one key",
        hint=f"write JSON, or set {names[0] if len(names) == 1 else start}__KEY for each key",
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _suggest(word: str, known: list[str], what: str) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"the {what} are {', '.join(known)}"


def _line_of(text: str, place: tuple[str, ...]) -> int | None:
    """The line of ``section.key`` in plain TOML (no dotted keys), else of the section, else ``None``."""
    section, found = "", None
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if header := re.fullmatch(r"\[\s*([\w.-]+)\s*\]\s*(?:#.*)?", bare):
            section = header.group(1)
            if place and place[0] == section:
                found = number
        elif assignment := re.match(r"([\w.-]+|\"[^\"]*\")\s*=", bare):
            key = assignment.group(1).strip('"')
            full = f"{section}.{key}" if section else key
            if ".".join((*place, "")).startswith(f"{full}."):  # of an inline table the line that it is on
                return number
    return found
