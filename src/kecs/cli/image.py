"""`kecs image`: images of this machine's Docker, for an instance on k3d."""

from __future__ import annotations

import click

from kecs.cli.commands import Entry, Group, command, pass_session
from kecs.cli.session import Session

COMMANDS = {
    "import": Entry("kecs.cli.image:import_images", "Import images from Docker into the cluster."),
}
LIMIT = 300.0
"""Seconds for one image; one of 8 MB takes 4 s, of which Docker's and k3d's own steps are most."""


@click.group("image", cls=Group, entries=COMMANDS)
def image() -> None:
    """Bring images that were built on this machine into the k3d cluster of the instance.

    Tasks need no command for it: unless the instance was started with `--import never`, the images of a task
    are imported before it starts.
    """


@command("import")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=LIMIT,
    metavar="SECONDS",
    help=f"Longest time for one image; default: {LIMIT:g}.",
)
@pass_session
def import_images(session: Session, images: tuple[str, ...], timeout: float) -> None:
    """Import IMAGEs from Docker on this machine into every node of the cluster, and see that they are there.

    An IMAGE is named as in `docker images` and in the task definition, such as `myapp:dev`.
    """
    from kecs.client import images as own

    own.import_images(session.paths, images, session.note, limit=timeout)
