"""`python -m benchmarks [--json FILE] [NAME…]`: run benchmarks and print one table.

Without names those run that need no cluster (under 10 minutes on a quiet machine), and with
KECS_BENCH_CLUSTER=1 all. `data-path` needs Linux and Debian packages, which it names when they are missing.
Those on a cluster bring it up themselves: `tests/cluster/harness`, as root, with some more packages.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import daemons, data_path, forwards, hundred, interpreter, table, tunnel
from benchmarks.cluster import Setting, setting
from benchmarks.table import Row
from kecs.errors import KecsError

ALONE: dict[str, Callable[[], list[Row]]] = {
    "data-path": data_path.measure,
    "daemons": daemons.measure,
    "forwards": forwards.measure,
}
ON_A_CLUSTER: dict[str, Callable[[Setting], list[Row]]] = {
    "tunnel": tunnel.measure,
    "interpreter": interpreter.measure,
    "hundred": hundred.measure,
}


def main() -> int:
    """Run the benchmarks; return 0 when all ran, whatever the figures are."""
    every = [*ALONE, *ON_A_CLUSTER]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of: {', '.join(every)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(every):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    names = arguments.names or (every if os.environ.get("KECS_BENCH_CLUSTER") == "1" else list(ALONE))
    rows, failed = run(names)
    print(table.show(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
    return int(failed)


def run(names: list[str]) -> tuple[list[Row], bool]:
    """Run these benchmarks, those on a cluster on one; return the rows, and whether one failed."""
    rows: list[Row] = []
    done = [_run(name, measure, rows) for name, measure in ALONE.items() if name in names]
    if any(name in ON_A_CLUSTER for name in names):
        with setting() as cluster:
            done += [
                _run(name, partial(measure, cluster), rows)
                for name, measure in ON_A_CLUSTER.items()
                if name in names
            ]
    return rows, not all(done)


def _run(name: str, measure: Callable[[], list[Row]], rows: list[Row]) -> bool:
    """Add the rows of one benchmark; one that fails must not cost the others theirs."""
    began = time.monotonic()
    try:
        rows += measure()
    except KecsError as error:
        print(f"error: {name}: {error.message}\nhint: {error.hint}", file=sys.stderr, flush=True)
        return False
    except Exception:  # noqa: BLE001 - the top of one benchmark
        traceback.print_exc()
        return False
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
