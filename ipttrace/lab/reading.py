"""Reads YAML into typed parts; an error names the file, the line and the way to the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ipttrace.decode.text import clean_text
from ipttrace.errors import UsageError
from ipttrace.lab.parts import BadFieldError, FieldPath
from ipttrace.lab.source import Source, path_text

T = TypeVar("T")

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes; 50,000 rules are 5 million."""
PLACE = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>.*)`\Z", re.DOTALL)
STEP = re.compile(r"\.(?P<field>[^.\[]+)|\[(?P<place>\d+)\]|\[(?P<any>\.\.\.)\]")


def read_bytes(file: str, *, what: str, hint: str = "") -> bytes:
    """Return what a file holds; raises UsageError, also if that is more than a lab can be."""
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {what} {clean_text(file)}: {reason}", hint) from error
    if len(content) > LARGEST_FILE:
        raise UsageError(f"cannot read {what} {clean_text(file)}: more than {LARGEST_FILE} bytes")
    return content


def read_document(text: bytes | str, file: str, *, what: str) -> tuple[Any, Source]:
    """Return what YAML text holds, untyped, and the lines of its fields; raises UsageError."""
    import yaml

    try:
        loader = yaml.CSafeLoader(text)
        try:
            root = loader.get_single_node()
            _refuse_doubles(root, Source(file, root), what)
            document = None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        problem = clean_text(" ".join(str(error).split()))
        raise UsageError(f"cannot read {what} {clean_text(file)}: not YAML: {problem}") from error
    return document, Source(file, root)


def typed(
    document: Any,
    kind: type[T],
    source: Source,
    *,
    what: str,
    extra: Mapping[str, object] | None = None,
) -> T:
    """Return the document as a `kind`; raises UsageError with file, line and field.

    `extra` are fields that do not come from the file, and that it may not have.
    """
    if extra and isinstance(document, dict):
        for field in extra.keys() & document.keys():
            raise bad_field(source, (field,), f"Object contains unknown field `{field}`", what)
        document = {**document, **extra}
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        message, path = _placed(error, document, kind)
        raise bad_field(source, path, message, what) from error
    except RecursionError as error:
        raise UsageError(f"cannot use {what} {clean_text(source.file)}: it holds itself") from error


def bad_field(source: Source, path: FieldPath, message: str, what: str) -> UsageError:
    """Return the error that says what is wrong with a field, and where the field is."""
    line = source.line(path)
    places = ([f"line {line}"] if line else []) + ([path_text(path)] if path else [])
    where = f"{', '.join(places)}: " if places else ""
    hint = "Correct the file."
    if message.startswith("Expected `str"):
        hint = "Put the value in quotes, or correct the file."
    return UsageError(clean_text(f"cannot use {what} {source.file}: {where}{message}"), hint)


def _placed(error: msgspec.ValidationError, document: Any, kind: Any) -> tuple[str, FieldPath]:
    """Return the message without msgspec's place, and the exact way to the field.

    msgspec writes `[...]` for a key of a map.  Which one it is shows when the map has that one only
    and the error stays the same.
    """
    text = str(error)
    found = PLACE.search(text)
    message = text[: found.start()] if found else text
    path: list[str | int] = []
    for step in STEP.finditer(found["path"] if found else ""):
        if step["any"]:
            path.append(_guilty_key(document, tuple(path), kind, text))
        else:
            path.append(int(step["place"]) if step["place"] else step["field"])
    cause = error.__cause__
    if isinstance(cause, BadFieldError):
        path += cause.path
    elif unknown := re.search(r"unknown field `(.*)`", message, re.DOTALL):
        path.append(unknown[1])
    return message, tuple(step for step in path if step != "")


def _guilty_key(document: Any, path: FieldPath, kind: Any, text: str) -> str | int:
    """Return the key of the map at `path` that the error is about; empty if none is."""
    for key in _at(document, path):
        try:
            msgspec.convert(_with(document, path, {key: _at(document, path)[key]}), kind)
        except msgspec.ValidationError as error:
            if str(error) == text:
                return str(key)
    return ""


def _at(document: Any, path: FieldPath) -> Any:
    for step in path:
        document = document[step]
    return document


def _with(document: Any, path: FieldPath, value: Any) -> Any:
    """Return a copy of the document with another value at `path`."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    copy: Any = list(document) if isinstance(document, list) else dict(document)
    copy[step] = _with(document[step], rest, value)
    return copy


def _refuse_doubles(root: Any, source: Source, what: str) -> None:
    """Raise UsageError if a map has a key twice: YAML would take the last one in silence."""
    seen: set[int] = set()
    open_nodes: list[tuple[Any, FieldPath]] = [(root, ())]
    while open_nodes:
        node, path = open_nodes.pop()
        if node is None or id(node) in seen or not isinstance(node.value, list):
            continue
        seen.add(id(node))
        if node.id == "sequence":
            open_nodes += [(child, (*path, place)) for place, child in enumerate(node.value)]
            continue
        keys: set[tuple[str, str]] = set()
        for key, child in node.value:
            name = str(key.value)
            if (key.tag, name) in keys:
                line = key.start_mark.line + 1
                text = clean_text(path_text((*path, name)))
                raise UsageError(
                    f"cannot use {what} {clean_text(source.file)}: line {line}, {text}: "
                    "it is there twice",
                    "Give each name once.",
                )
            keys.add((key.tag, name))
            open_nodes.append((child, (*path, name)))
