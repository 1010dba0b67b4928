"""`python -m kecs.agent --home H --instance N [--ready-fd FD]`: started by `kecs.client.launch`."""

from __future__ import annotations

import sys

# asyncio imports ssl where it can and works without: that saves 4 MB, and nothing of a local
# instance speaks TLS (docs/design/design.md, 3.12). What needs it later imports it as usual.
sys.modules["ssl"] = None  # type: ignore[assignment]
import asyncio  # noqa: E402, F401 - imported for its effect

del sys.modules["ssl"]

from kecs.agent.daemon import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
