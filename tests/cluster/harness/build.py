"""The programs that the cluster is made of, compiled once and kept outside the repository.

`make test-cluster` runs this module before pytest, because compiling Kubernetes takes minutes and a test
has a time limit. A program is kept below `${XDG_CACHE_HOME:-~/.cache}/kecs-test/`, named by the hash of the
sources that decide what it is, so that a change of go.sum compiles anew and a second checkout does not.
Two runs at once compile once: the second waits for the first one's lock.

Facts: the module of Kubernetes asks for Go 1.25; `CGO_ENABLED=0` makes a program that runs in any image;
without the `-X …gitVersion` flags the kubelet calls itself v0.0.0 and clients refuse it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

SOURCES = Path(__file__).parent.parent
GO_SECONDS = 3600
REPORT_EVERY = 15.0
VERSION_PACKAGE = "k8s.io/component-base/version"

# What each Debian package is needed for: the program by which its presence is known.
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "iproute2": "ip",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "util-linux": "nsenter",
    "busybox-static": "busybox",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "postgresql": "pgbench",
    "redis-server": "redis-server",
    "redis-tools": "redis-benchmark",
}


def cache() -> Path:
    """Return the folder of compiled programs, which exists afterwards."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kecs-test"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def kube() -> Path:
    """Return the program that holds every component of Kubernetes, compiling it when it is missing."""
    folder = SOURCES / "kube"
    version = kubernetes_version()
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamps = " ".join(f"-X {VERSION_PACKAGE}.{name}={value}" for name, value in values.items())
    files = [folder / name for name in ("go.mod", "go.sum", "main.go")]
    return _compiled("kube", folder, files, f"-s -w {stamps}", "about 5 minutes on two cores, once")


def server() -> Path:
    """Return the test server, compiling it when it is missing."""
    folder = SOURCES / "server"
    files = [folder / "go.mod", *sorted(folder.glob("*.go"))]
    return _compiled("server", folder, files, "-s -w", "some seconds")


def kubernetes_version() -> str:
    """Return the version that go.mod pins, such as `1.35.4`."""
    found = re.search(r"k8s\.io/kubernetes v(\S+)", (SOURCES / "kube/go.mod").read_text())
    assert found, "tests/cluster/kube/go.mod requires no k8s.io/kubernetes"
    return found[1]


def missing_packages() -> list[str]:
    """Return the Debian packages whose program is not here."""
    missing = [package for package, program in PACKAGES.items() if not shutil.which(program)]
    if "busybox-static" not in missing and not _static(shutil.which("busybox") or ""):
        missing.append("busybox-static")  # the other one is of no use in an image
    return missing


def _static(program: str) -> bool:
    return subprocess.run(["ldd", program], capture_output=True, check=False).returncode != 0


def require_machine() -> None:
    """Raise RuntimeError, with what to do, where a cluster cannot be brought up."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise RuntimeError(
            "a test cluster needs Linux and root (namespaces, mounts); "
            "or name a cluster of yours: KECS_TEST_KUBECONFIG=~/.kube/config"
        )
    if missing := missing_packages():
        raise RuntimeError(f"programs are missing: apt-get install {' '.join(missing)}")


def _compiled(name: str, folder: Path, files: Iterable[Path], flags: str, patience: str) -> Path:
    digest = hashlib.sha256(flags.encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    program = cache() / f"{name}-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _compile(program, folder, flags, patience)
    return program


def _compile(program: Path, folder: Path, flags: str, patience: str) -> None:
    if not shutil.which("go"):
        raise RuntimeError(f"`go` is missing, which compiles {folder.name} for the cluster tests")
    new = program.with_suffix(f".{os.getpid()}")
    command = ["go", "build", "-trimpath", "-ldflags", flags, "-o", str(new), "."]
    _say(f"compiling tests/cluster/{folder.name} ({patience}) …")
    started = time.monotonic()
    try:
        with subprocess.Popen(command, cwd=folder, env=os.environ | {"CGO_ENABLED": "0"}) as going:
            while True:
                try:
                    code = going.wait(REPORT_EVERY)
                    break
                except subprocess.TimeoutExpired:
                    spent = time.monotonic() - started
                    _say(f"  still compiling after {spent:.0f} s")
                    if spent > GO_SECONDS:
                        going.kill()
                        raise
        if code:
            raise RuntimeError(f"go build in {folder} failed with exit {code}")
        new.replace(program)
    finally:
        new.unlink(missing_ok=True)
    _say(f"  {program} after {time.monotonic() - started:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Compile what is missing; with `--packages` only name the Debian packages that are."""
    if sys.argv[1:] == ["--packages"]:
        print(*missing_packages())
        return
    try:
        require_machine()
        kube()
        server()
    except RuntimeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
