"""What the fast commands import. Time itself is measured by benchmarks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.client.fakes import row

from kecs.client import launch

HEAVY = {"asyncio", "logging", "msgspec", "yaml", "rich", "http.client", "subprocess", "h11", "email", "ssl"}


def imported(*arguments: str) -> set[str]:
    """Run a command in a process of its own; return the modules it imported."""
    code = (
        "import sys\nfrom kecs.cli.main import run\ncode = run(sys.argv[1:])\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)\nsys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("pf", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(home, arguments):
    assert imported(*arguments) & (HEAVY | {"socket", "json"}) == set()


def test_list_with_a_running_agent_imports_nothing_heavy(home):
    home.instance()
    home.daemons_do(agent={"forwards": [row()]})
    launch.launch("agent", home.paths)

    assert imported("port-forward", "list") & HEAVY == set()
    assert imported("port-forward", "list", "-o", "json") & HEAVY == set()
