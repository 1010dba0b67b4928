"""Text that Kubernetes must leave alone: it expands `$(NAME)` in commands and variables, ECS does not."""

from __future__ import annotations

from collections.abc import Iterable


def literal(text: str) -> str:
    """Return what Kubernetes turns into `text`: each `$` is doubled.

    Not only `$(`: a `$$` of the text would become one `$` (Kubernetes' third_party/forked/golang/expansion).
    """
    return text.replace("$", "$$")


def literals(texts: Iterable[str]) -> list[str]:
    """Return each text as `literal` does: arguments of a command."""
    return [literal(text) for text in texts]
