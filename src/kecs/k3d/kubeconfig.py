"""What `k3d kubeconfig get` prints, made to point where the API is published. Used by `cluster`; pure.

It holds the cluster's keys: it is returned, and never part of a message.
"""

from __future__ import annotations

from typing import Any

from kecs import files


def rewritten(text: str, api_port: int) -> str | None:
    """Return the kubeconfig with its server at 127.0.0.1:`api_port`, as YAML.

    None when it is not whole, because the server has not written all of it yet.
    """
    document = _whole(text)
    if document is None:
        return None
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{api_port}"
    return files.dump_yaml(document)


def _whole(text: str) -> dict[str, Any] | None:
    try:
        document = files.parse_yaml(text.encode())
    except ValueError:
        return None
    try:
        user = document["users"][0]["user"]
        if document["clusters"][0]["cluster"]["server"] and (
            user.get("client-key-data") or user.get("token")
        ):
            return dict(document)
    except (KeyError, IndexError, TypeError, AttributeError):
        pass
    return None
