"""The commands of docs/guides/kubernetes.md (and k3d.md), run as they are written there.

Used by `test_guide`. A shell runs them with `kubectl`, `kecs` and `aws` on its PATH, and with a home whose
`~/.kube/config` is the cluster's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.cluster.harness import build
from tests.cluster.target import Target
from tests.process.harness import Home

FOLDER = Path(__file__).parents[2] / "docs/guides"
GUIDE = FOLDER / "kubernetes.md"


def blocks(guide: Path = GUIDE) -> dict[str, list[str]]:
    """Return the shell blocks of each section of the guide, by its heading."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^#+ ", guide.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        found[heading] = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return {heading: commands for heading, commands in found.items() if commands}


class Reader:
    """Somebody who follows the guide, with a home of their own."""

    def __init__(self, home: Home, target: Target) -> None:
        self._home = home
        programs = home.path / "bin"
        programs.mkdir()
        kubectl = programs / "kubectl"
        kubectl.write_text(f'#!/bin/sh\nexec {build.kube()} kubectl "$@"\n')
        kubectl.chmod(0o755)
        (home.path / ".kube").mkdir(mode=0o700)
        shutil.copy(target.kubeconfig, home.path / ".kube/config")
        home.environment["PATH"] = f"{programs}:{home.environment['PATH']}"

    def run(self, *commands: str) -> str:
        """Run blocks in one shell that ends at the first command that fails; return what they printed.

        Only the port of the API is another: the default one may be that of somebody's own instance.
        """
        script = "\n".join(commands).replace("kecs start --runtime", "kecs start --port 0 --runtime")
        done = subprocess.run(
            ["sh", "-eux", "-c", script],
            env=self._home.environment,
            cwd=FOLDER,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout
