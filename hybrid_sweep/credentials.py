"""Secrets: what is one among names, texts and URLs, what stands in its place, and where it is found again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

HIDDEN = "***"
VARIABLE = "HYBRID_SWEEP_SECRET_"
"""How the environment variable begins in which a secret is looked for that a sweep was given as it is."""
SHORTEST = 6
"""Characters of a secret that is hidden wherever it stands: a shorter one is a piece of many words."""

_SECRET = re.compile(
    r"(?:^|_)(?:[a-z]*password|[a-z]*passwd|passphrase|pass|pwd|[a-z]*secret|(?:auth|access|api|bearer)?token|"
    r"api_?key|access_?key(?:_?id)?|(?:private|secret|signing)_?key|credentials?|auth|authorization)s?$"
)
_NO_SECRET = re.compile(
    r"(?:^|_)(?:pad|eos|bos|unk|mask|sep|cls|start|end|stop|special|blank|next|num|n|max|min|total)_?tokens?$"
    r"|(?:forward|backward|low|high|band)_pass$"
)
_ASSIGNED = re.compile(r"([\w-]+)[\"']?\s*([=:])\s*")
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_known: set[str] = set()


def is_secret(name: str) -> bool:
    """Return whether what goes by `name` is a secret: `sslpassword`, `hf_token`, not `pad_token`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).lower()
    return bool(_SECRET.search(words)) and not _NO_SECRET.search(words)


def masked(text: str) -> str:
    """Return a URL, or a word of a command, with every password and token in it as `***`."""
    text = re.sub(r"//([^:@/?]*):.*@", rf"//\1:{HIDDEN}@", text)
    text = re.sub(r"(?i)\b(https?)://[^@/:?\s]+@", rf"\1://{HIDDEN}@", text)
    parts, at = [], 0
    for found in _ASSIGNED.finditer(text):
        if found.start() >= at and is_secret(found[1]):
            end = re.compile(r"[&\n]|$" if found[2] == "=" else r"[,}\]\n]|$").search(text, found.end())
            parts += [text[at : found.end()], HIDDEN]
            at = end.start() if end else len(text)
    return "".join([*parts, text[at:]])


def public(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords as a manifest may hold them: a secret as `${VARIABLE}`, in which it is looked for."""
    return {name: _each(value, (name,), _referred) for name, value in values.items()}


def harmless(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords as a screen or a report may show them: a secret as `***`, a reference as it is."""
    return {name: _each(value, (name,), lambda inner, path: _hidden(inner)) for name, value in values.items()}


def resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords with the value of the environment variable for each text `${VARIABLE}`.

    Secrets among them are hidden from now on in whatever this process tells.

    Raises:
        KeyError: with the name of a variable that is not set.
    """
    found = {name: _every(value, _looked_up) for name, value in values.items()}
    for name, value in found.items():
        _each(value, (name,), _remembered)
    return found


def without_secrets(text: str) -> str:
    """Return `text` with `***` for each secret that this process has been given."""
    for secret in _known:
        text = text.replace(secret, HIDDEN)
    return text


def _each(
    value: Any, path: tuple[str, ...], change: Callable[[Any, tuple[str, ...]], Any], secret: bool = False
) -> Any:
    """Return `value` with `change` of each secret in it, at any depth."""
    secret = secret or (bool(path) and is_secret(path[-1]))
    if isinstance(value, Mapping):
        return {key: _each(inner, (*path, str(key)), change, secret) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each(inner, (*path, str(i)), change, secret) for i, inner in enumerate(value)]
    if isinstance(value, str):
        given = value and not _REFERENCE.fullmatch(value) and (secret or masked(value) != value)
        return change(value, path) if given else value
    number = (
        isinstance(value, int) and not isinstance(value, bool) and re.search("(?i)pass|secret", str(path))
    )
    return change(value, path) if secret and number else value


def _every(value: Any, change: Callable[[str], Any]) -> Any:
    """Return `value` with `change` of each text in it, at any depth."""
    if isinstance(value, Mapping):
        return {key: _every(inner, change) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_every(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


def _referred(value: Any, path: tuple[str, ...]) -> str:
    name = re.sub(r"\W", "_", "_".join(path)).upper()
    return f"${{{VARIABLE}{name}}}"


def _hidden(value: Any) -> str:
    whole = masked(value) if isinstance(value, str) else HIDDEN
    return whole if whole != value else HIDDEN


def _looked_up(text: str) -> str:
    found = _REFERENCE.fullmatch(text)
    if not found:
        return text
    value, name = os.environ[found[1]], found[1]
    return _remembered(value, ()) if is_secret(name) or name.startswith(VARIABLE) else value


def _remembered(value: Any, path: tuple[str, ...]) -> Any:
    inner = re.search(r"//[^:@/?]*:(.*)@", str(value))
    _known.update(each for each in (str(value), inner[1] if inner else "") if len(each) >= SHORTEST)
    return value
