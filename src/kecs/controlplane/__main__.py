"""`python -m kecs.controlplane --home H --instance N`: the control plane's process."""

from __future__ import annotations

import sys

from kecs.controlplane.daemon import main

if __name__ == "__main__":
    sys.exit(main())
