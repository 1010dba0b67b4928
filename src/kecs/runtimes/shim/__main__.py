"""Start the shim: find our own package by this file's place, and nothing else of it."""

from __future__ import annotations

import os
import sys


def _run() -> int:
    # -I and -S leave the standard library alone on the path; ours is added behind it, for the imports only.
    root = os.path.abspath(__file__)  # noqa: PTH100 - pathlib takes 8 ms to import
    for _ in range(4):
        root = os.path.dirname(root)  # noqa: PTH120
    sys.path.append(root)
    from kecs.runtimes.shim.daemon import main

    sys.path.remove(root)
    return main(sys.argv[1])


if __name__ == "__main__":
    code = _run()
    sys.stderr.flush()
    os._exit(code)  # there is nothing to tidy up, and tidying takes longer than a stop
