"""What a container's environment is made of: files, definition, overrides, secrets.

In ECS environment files come first and the first file that names a variable wins, `environment` wins
over files, overrides over both (ECS Developer Guide, use-environment-file). Secrets and files are
looked up as docs/design/contracts.md, 7 says; what is missing is a `ResourceInitializationError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_SUFFIX = re.compile(r"-[A-Za-z0-9]{6}$")
"""Secrets Manager ends a secret's ARN with a hyphen and six random characters."""
_S3_ARN = re.compile(r"arn:aws[a-z-]*:s3:::([^/]+)/(.+)")
_SECRET_ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:[^:]*:[^:]*:secret:([^:]+)((?::[^:]*)*)")
_PARAMETER_ARN = re.compile(r"arn:aws[a-z-]*:ssm:[^:]*:[^:]*:parameter/(.+)")


class MissingResourceError(Exception):
    """A secret or an environment file that is not there; the text is the task's stopped reason."""


def environment_of(
    container: Mapping[str, Any],
    override: Mapping[str, Any],
    *,
    secrets: Mapping[str, str],
    s3: Path,
) -> dict[str, str]:
    """Return the variables of a container as its definition and its override give them.

    `secrets` are the values that `kecs secrets set` keeps, by name; `s3` is the folder that stands for
    S3. Raises `MissingResourceError`.
    """
    found: dict[str, str] = {}
    files = override.get("environmentFiles") or container.get("environmentFiles") or []
    for file in files:
        for name, value in read_environment_file(file.get("value", ""), s3).items():
            found.setdefault(name, value)
    for pair in (*container.get("environment", []), *override.get("environment", [])):
        if pair.get("name"):
            found[pair["name"]] = pair.get("value") or ""
    for secret in container.get("secrets", []):
        found[secret["name"]] = resolve_secret(secret["valueFrom"], secrets)
    return found


def read_environment_file(arn: str, s3: Path) -> dict[str, str]:
    """Read `arn:aws:s3:::bucket/key` from `<s3>/bucket/key`. Raises `MissingResourceError`."""
    match = _S3_ARN.fullmatch(arn)
    if match is None:
        raise MissingResourceError(
            f"ResourceInitializationError: failed to download env files: {arn} is not the ARN of an S3 object"
        )
    path = (s3 / match[1] / match[2]).resolve()
    if not path.is_relative_to(s3.resolve()):
        raise MissingResourceError(
            f"ResourceInitializationError: failed to download env files: {arn} leads out of its bucket"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise MissingResourceError(
            "ResourceInitializationError: failed to download env files: "
            f"{arn} is read from {s3 / match[1] / match[2]} here: {why}"
        ) from error
    return dict(parse_environment_file(text.splitlines()))


def parse_environment_file(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Yield (name, value) of each `NAME=value`; lines that begin with `#` are comments.

    As in ECS nothing is unquoted and nothing is expanded: a value is what stands behind the first `=`.
    """
    for line in lines:
        name, equals, value = line.strip().partition("=")
        if equals and name and not name.startswith("#"):
            yield name, value


def resolve_secret(value_from: str, secrets: Mapping[str, str]) -> str:
    """Return the value that `valueFrom` names. Raises `MissingResourceError`."""
    values = {name.lstrip("/"): value for name, value in secrets.items()}
    whole = values.get(value_from.lstrip("/"))
    names, json_key, store = _names_of(value_from)
    if whole is not None:
        selected = _select(whole, json_key) if json_key else None
        return whole if selected is None else selected
    for name in names:
        value = values.get(name)
        if value is None:
            continue
        if not json_key:
            return value
        selected = _select(value, json_key)
        if selected is None:
            raise _unresolved(store, f"the value of {name} has no key {json_key}", names[-1])
        return selected
    raise _unresolved(store, f"{value_from} has no value", names[-1])


def _names_of(value_from: str) -> tuple[list[str], str, str]:
    """Return (names under which a value may be kept, json-key or "", `asm` or `ssm`)."""
    if match := _SECRET_ARN.fullmatch(value_from):
        arn = value_from[: match.start(2)]
        json_key = match[2].split(":")[1] if match[2] else ""
        return [arn, match[1].lstrip("/"), _SUFFIX.sub("", match[1]).lstrip("/")], json_key, "asm"
    if match := _PARAMETER_ARN.fullmatch(value_from):
        return [match[1].lstrip("/")], "", "ssm"
    return [value_from.lstrip("/")], "", "ssm"


def _select(value: str, key: str) -> str | None:
    try:
        document = json.loads(value)
    except ValueError:
        return None
    if not isinstance(document, dict) or key not in document:
        return None
    selected = document[key]
    return selected if isinstance(selected, str) else json.dumps(selected)


def _unresolved(store: str, why: str, name: str) -> MissingResourceError:
    return MissingResourceError(
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval "
        f"failed: unable to retrieve secret from {store}: {why} (set it by `kecs secrets set {name}`)"
    )
