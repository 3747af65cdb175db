"""Puts pydantic's validation errors into plain words: what a setting must be, and what to write instead."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from edge.errors import SettingsError

_WORDS = {
    "list_type": "must be a list",
    "dict_type": "must be a table of 'name: value'",
    "dataclass_type": "must be a table of 'name: value'",
    "model_type": "must be a table of 'name: value'",
    "string_type": "must be text; put it in quotes if YAML takes it for something else",
    "path_type": "must be a path; put it in quotes if YAML takes it for something else",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_pattern_mismatch": "must match the pattern {pattern}",
}
_FAMILIES = {"float": "must be a number", "int": "must be a whole number", "bool": "must be true or false"}
_EXTRA = ("extra_forbidden", "unexpected_keyword_argument")


def refusal(kind: type[BaseModel], e: ValidationError, what: str, source: str) -> SettingsError:
    """The error for the first thing wrong with settings of a kind; `what` names them, as in "training setting"."""
    first = e.errors()[0]
    path = [str(x) for x in first["loc"] if x != "[key]"]
    if first["type"] in _EXTRA:
        names = _names(kind, path)
        return SettingsError(
            f"unknown {what} '{'.'.join(path)}' from {source}",
            why=nearest(path[-1], names),
            fix=f"there are {', '.join(names)}",
        )
    given = first.get("input")
    shown = "" if _is_object(given) else ": nothing" if given is None else f": {given!r:.80}"
    return SettingsError(
        f"{what} '{'.'.join(path)}' from {source}{shown}",
        why=_in_words(first),
        fix=_instead(kind, first, path),
    )


def nearest(key: str, names: Iterable[str]) -> str:
    """A guess at which name was meant, or ''."""
    close = difflib.get_close_matches(key, list(names), n=1)
    return f"did you mean '{close[0]}'?" if close else ""


def _in_words(error: Mapping[str, Any]) -> str:
    kind = error["type"]
    if kind in _WORDS:
        return _WORDS[kind].format(**error.get("ctx", {}))
    return _FAMILIES.get(kind.partition("_")[0]) or str(error["msg"]).removeprefix("Value error, ")


def _instead(kind: type[BaseModel], error: Mapping[str, Any], path: list[str]) -> str:
    cause = getattr(error.get("ctx", {}).get("error"), "__cause__", None)
    if isinstance(cause, SettingsError):
        return cause.fix
    examples = kind.model_fields[path[0]].examples or []
    if error["type"] == "list_type":
        given = error.get("input")
        item = given if isinstance(given, str) and given else "walk"
        # Quote what YAML would read as something else.
        return f"write {path[-1]}: [{item if item.replace('_', '').replace('-', '').isalnum() else json.dumps(item)}]"
    return f"for example {path[0]}: {examples[0]}" if examples else "correct it and start again"


def _names(kind: type[BaseModel], path: list[str]) -> list[str]:
    """The names that are allowed in place of the last one of the path."""
    if len(path) > 1:
        inner = kind.model_fields[path[0]].annotation
        return [f.name for f in fields(inner)] if is_dataclass(inner) else []
    return list(kind.model_fields)


def _is_object(value: Any) -> bool:
    """Whether this is an already built part of the settings, and not something that somebody wrote."""
    return is_dataclass(value) or isinstance(value, BaseModel)
