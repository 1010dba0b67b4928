"""What a cluster leaves in Docker: looked for after every delete, because k3d's exit code 0 proves nothing.

Used by `cluster`. Two creates at once leave two networks of one name, which k3d cannot delete, and with which
no cluster of that name can ever be made: by their ids, Docker can.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kecs.k3d.failures import failure
from kecs.k3d.run import Said

if TYPE_CHECKING:
    from kecs.k3d.cluster import K3dCluster


CONTAINER = '{{.Names}} {{.Label "k3d.role"}}'


@dataclass(frozen=True, slots=True)
class Left:
    """Names of containers and volumes, ids of networks."""

    containers: tuple[str, ...]
    networks: tuple[str, ...]
    volumes: tuple[str, ...]
    why: str = ""
    """What Docker said against removing it."""

    def __bool__(self) -> bool:
        """Tell whether anything is left."""
        return bool(self.containers or self.networks or self.volumes)

    def __str__(self) -> str:
        """Name what is left, for a person."""
        kinds = (("container", self.containers), ("network", self.networks), ("volume", self.volumes))
        return ", ".join(f"{kind} {name}" for kind, names in kinds for name in names)

    def commands(self) -> str:
        """Return the commands that remove it."""
        kinds = (
            ("docker rm -f -v", self.containers),
            ("docker network rm", self.networks),
            ("docker volume rm", self.volumes),
        )
        return ", ".join(f"`{command} {' '.join(names)}`" for command, names in kinds if names)


def find(cluster: K3dCluster) -> Left:
    """Ask Docker what there is of `cluster`."""
    name = f"k3d-{cluster.name}"
    containers = _lines(
        cluster,
        cluster.docker(
            *("ps", "-a", "--filter", f"label=k3d.cluster={cluster.name}", "--format", CONTAINER),
        ),
    )
    networks = _lines(
        cluster,
        cluster.docker("network", "ls", "--filter", f"name={name}", "--format", "{{.ID}} {{.Name}}"),
    )
    volumes = _lines(
        cluster, cluster.docker("volume", "ls", "--filter", f"name={name}-images", "--format", "{{.Name}}")
    )
    # Docker's filters by name find what contains it: `k3d-kecs-a` would find `k3d-kecs-ab`.
    return Left(
        # A registry may serve several clusters, and k3d keeps it.
        tuple(line.split()[0] for line in containers if line.split()[1:] != ["registry"]),
        tuple(line.split()[0] for line in networks if line.split()[-1] == name),
        tuple(each for each in volumes if each == f"{name}-images"),
    )


def remove(cluster: K3dCluster) -> Left:
    """Remove by Docker what there is of `cluster`, and return what is still there."""
    left = find(cluster)
    if not left:
        return left
    requests = [("rm", "-f", "-v", *left.containers)] if left.containers else []
    requests += [("network", "rm", network) for network in left.networks]
    requests += [("volume", "rm", *left.volumes)] if left.volumes else []
    said = [cluster.docker(*words, limit=120.0) for words in requests]
    return replace(find(cluster), why="; ".join(each.words for each in said if each.code != 0))


def _lines(cluster: K3dCluster, said: Said) -> list[str]:
    if said.code != 0:
        raise failure(f"asking Docker what is left of `{cluster.name}`", said, "see what `docker ps -a` says")
    return [line.strip() for line in said.stdout.splitlines() if line.strip()]
