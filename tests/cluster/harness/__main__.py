"""`python -m tests.cluster.harness up|down|images`: a cluster to work with by hand.

`up` prints the path of its kubeconfig and leaves it running until `down`; tests run against it with
`KECS_TEST_KUBECONFIG=that path`. `images FOLDER` writes the archives of the images that the tests use, for
a cluster that is not of this harness (`kind load image-archive`, `ctr images import`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.cluster.harness import images
from tests.cluster.harness.cluster import Cluster, Options, take_down


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.harness")
    commands = parser.add_subparsers(dest="do", required=True)
    up = commands.add_parser("up", help="bring a cluster up; print the path of its kubeconfig")
    up.add_argument("--nodes", type=int, default=1)
    up.add_argument("--node-loss", type=int, help="seconds after which a silent node counts as lost")
    down = commands.add_parser("down", help="take it down")
    for command in (up, down):
        command.add_argument("--name", default="hand", help="several clusters stand side by side")
    archives = commands.add_parser("images", help="write the archives of the tests' images")
    archives.add_argument("folder", type=Path)
    asked = parser.parse_args()
    try:
        if asked.do == "up":
            options = Options(nodes=asked.nodes, node_loss_seconds=asked.node_loss)
            print(Cluster.up(asked.name, options, lasting=True).kubeconfig)
        elif asked.do == "down":
            take_down(asked.name)
        else:
            print(*images.standard(asked.folder), sep="\n")
    except FileExistsError:
        sys.exit(f"error: cluster {asked.name} is up; take it down first, or give a --name")
    except (RuntimeError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
