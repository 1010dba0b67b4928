"""`python -m tests.cluster.harness up|down`: a cluster to work with by hand.

`up` prints the path of its kubeconfig and leaves it running until `down`; tests run against it with
`KECS_TEST_KUBECONFIG=that path`.
"""

from __future__ import annotations

import argparse
import sys

from tests.cluster.harness.cluster import Cluster, Options, take_down


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.harness", description=__doc__)
    parser.add_argument("do", choices=["up", "down"])
    parser.add_argument("--name", default="hand", help="several clusters stand side by side")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--node-loss", type=int, help="seconds after which a silent node counts as lost")
    asked = parser.parse_args()
    try:
        if asked.do == "down":
            take_down(asked.name)
        else:
            options = Options(nodes=asked.nodes, node_loss_seconds=asked.node_loss)
            print(Cluster.up(asked.name, options, lasting=True).kubeconfig)
    except FileExistsError:
        sys.exit(f"error: cluster {asked.name} is up; take it down first, or give a --name")
    except (RuntimeError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
