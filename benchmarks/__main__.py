"""`python -m benchmarks [--json FILE] [NAME…]`: run benchmarks and print one table.

Without names those run that need no cluster, and with KECS_BENCH_CLUSTER=1 all. Those that need one bring it
up themselves: `tests/cluster/harness`, on Linux as root, with wrk and some more Debian packages.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks import daemons, forwards, hundred, interpreter, table, tunnel
from benchmarks.cluster import Setting, setting
from benchmarks.table import Row

ALONE: dict[str, Callable[[], list[Row]]] = {"daemons": daemons.measure, "forwards": forwards.measure}
ON_A_CLUSTER: dict[str, Callable[[Setting], list[Row]]] = {
    "tunnel": tunnel.measure,
    "interpreter": interpreter.measure,
    "hundred": hundred.measure,
}


def main() -> None:
    """Run the benchmarks."""
    every = [*ALONE, *ON_A_CLUSTER]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of: {', '.join(every)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(every):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    rows = run(arguments.names or (every if os.environ.get("KECS_BENCH_CLUSTER") == "1" else list(ALONE)))
    print(table.show(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")


def run(names: list[str]) -> list[Row]:
    """Run these benchmarks; those on a cluster share one."""
    rows = [row for name, measure in ALONE.items() if name in names for row in measure()]
    if any(name in ON_A_CLUSTER for name in names):
        with setting() as cluster:
            for name, measure in ON_A_CLUSTER.items():
                if name in names:
                    rows += measure(cluster)
    return rows


if __name__ == "__main__":
    main()
