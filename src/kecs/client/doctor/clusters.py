"""Checks of what runs tasks as pods: kubeconfig and cluster, Docker and k3d where a cluster lives in them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kecs.client import cluster, k3d
from kecs.client.doctor.finding import Finding, error, not_used, ok, warning
from kecs.client.doctor.machine import Known, Machine, Ran
from kecs.client.instance import Instance
from kecs.errors import KecsError
from kecs.kube import kubeconfig
from kecs.paths import InstancePaths, instance_flag

PATIENCE = 5.0
"""Seconds for a cluster or Docker to answer."""
K3D = (5, 0)
"""First version of k3d whose clusters are found by name and context."""
IN_DOCKER = ("k3d-", "kind-", "minikube")
"""How the contexts of clusters begin that are containers of this machine's Docker."""


def check_kubeconfig(machine: Machine) -> Iterator[Finding]:
    """Look whether the clusters of the instances are there, and the same as at their first start."""
    chosen = [known for known in machine.instances if known.instance and known.instance.kubernetes]
    for known in chosen:
        yield from _cluster_of(known)
    if chosen:
        return
    try:
        found = kubeconfig.choose(None, None, machine.environ)
    except KecsError as why:
        if _is_there(machine):
            yield warning("kubeconfig", why.message, why.hint or "see `kubectl config view`")
        else:
            yield not_used("kubeconfig", "there is none, and no instance has a cluster")
    else:
        yield not_used("kubeconfig", f"its current context is `{found.name}`; no instance has a cluster")


def _cluster_of(known: Known) -> Iterator[Finding]:
    assert known.instance is not None
    assert known.instance.kubernetes is not None
    it, where = known.instance.kubernetes, f"the instance `{known.instance.name}`"
    if known.instance.k3d is not None and known.instance.desired == "stopped":
        yield not_used("kubeconfig", f"the cluster of {where} is stopped with it")
        return
    try:
        cluster.confirm(it, PATIENCE)
    except KecsError as why:
        yield error(
            "kubeconfig",
            f"{where}, context `{it.context}`: {why.message}",
            why.hint or f"`kubectl --context {it.context} get nodes` shows whether you reach it",
        )
    else:
        yield ok("kubeconfig", f"the cluster of {where} answers (context `{it.context}`)")


def _is_there(machine: Machine) -> bool:
    return any(path.exists() for path in kubeconfig.files(None, machine.environ)[0])


def check_docker(machine: Machine) -> Iterator[Finding]:
    """Look whether Docker answers, when a cluster needs it or it is there."""
    needs = _needs(machine, IN_DOCKER)
    if machine.find("docker") is None:
        yield _unless_needed(
            "Docker", "is not installed", needs, "install Docker, then start the cluster again"
        )
        return
    ran = machine.run(("docker", "version", "--format", "{{.Server.Version}}"), PATIENCE)
    if ran.code == 0:
        yield ok("Docker", f"Docker {ran.out.strip()} answers")
        return
    said = _last(ran)
    if "permission denied" in said.lower():
        advice = "`sudo usermod -aG docker $(id -un)`, then log in again"
    else:
        advice = "start Docker: `sudo systemctl start docker`, or Docker Desktop; `docker info` says more"
    yield _unless_needed("Docker", f"does not answer: {said}", needs, advice)


def check_k3d(machine: Machine) -> Iterator[Finding]:
    """Look which k3d there is, when a cluster of it is used or it is there; and how KECS's own ones are."""
    yield _program(machine)
    for known in machine.instances:
        if known.instance is not None and known.instance.k3d is not None:
            yield _own_cluster(machine, known.paths, known.instance)


def _program(machine: Machine) -> Finding:
    needs = _needs(machine, IN_DOCKER[:1])
    if machine.find("k3d") is None:
        return _unless_needed("k3d", "is not installed", needs, "install it: https://k3d.io")
    ran = machine.run(("k3d", "version"), PATIENCE)
    match = re.search(r"k3d version v?(\d+)\.(\d+)\S*", ran.out)
    if ran.code != 0 or match is None:
        return _unless_needed("k3d", f"does not say its version: {_last(ran)}", needs, "install it again")
    if (int(match[1]), int(match[2])) < K3D:
        return warning("k3d", f"{match[0]} is too old", f"install {K3D[0]}.{K3D[1]} or newer: https://k3d.io")
    return ok("k3d", match[0])


def _own_cluster(machine: Machine, paths: InstancePaths, it: Instance) -> Finding:
    """Compare the cluster that KECS made for an instance with what that should be."""
    flag = instance_flag(it.name)
    start, stop = f"`kecs start{flag}`", f"`kecs stop{flag}`"
    if k3d.never_was(it):
        text = f"the first start of the instance `{it.name}` was interrupted"
        return warning("k3d", text, f"{start} begins anew, `kecs destroy{flag}` removes what is left of it")
    found = k3d.look(paths, it, machine.environ)
    text = f"the cluster `{found.cluster}` of the instance `{it.name}` is {found.state}: {found.detail}"
    if found.state == "unknown":
        return error("k3d", text, "see what is said of k3d and of Docker here")
    if it.desired == "running":
        return ok("k3d", text) if found.state == "running" else error("k3d", text, f"{start} repairs it")
    if found.state == "absent":
        return warning("k3d", text, f"nothing has to be done: {start} makes it anew")
    return ok("k3d", text) if found.state == "stopped" else warning("k3d", text, f"{stop} stops it")


def _needs(machine: Machine, contexts: tuple[str, ...]) -> str | None:
    """Return the name of an instance whose cluster lives in Docker, by how its context is called."""
    for known in machine.instances:
        it = known.instance
        if it is None:
            continue
        if it.k3d is not None or (it.kubernetes and it.kubernetes.context.startswith(contexts)):
            return it.name
    return None


def _unless_needed(what: str, text: str, needs: str | None, advice: str) -> Finding:
    if needs is None:
        return not_used(what, f"{what} {text}; no instance needs it")
    return error(what, f"{what} {text}, and the cluster of the instance `{needs}` needs it", advice)


def _last(ran: Ran) -> str:
    """Return the last line that a program wrote, on standard error before standard output."""
    lines = [line.strip() for line in (ran.err or ran.out).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {ran.code}"
