"""`python -m benchmarks [--json FILE]`: run everything here and print one table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import daemons, table


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    rows = daemons.measure()
    print(table.show(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
