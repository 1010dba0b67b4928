"""uvicorn as a library: without its command line where that works, whole where it does not."""

import subprocess
import sys

SCRIPT = """
import sys
from kecs.controlplane import servers
{before}
connections = servers._import_connections()
assert connections.Server
assert "uvicorn.main" not in sys.modules or sys.modules["uvicorn.main"].__file__
print("click" in sys.modules)
"""


def click_is_imported(before=""):
    command = [sys.executable, "-c", SCRIPT.format(before=before)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return answer.stdout == "True\n"


def test_click_is_not_imported_for_serving():
    """It would be half of the time that importing uvicorn takes."""
    assert not click_is_imported()


def test_a_uvicorn_that_wants_its_command_line_gets_it():
    """The placeholder lacks a name then: the import is done again, without it."""
    without_run = "vars_ = vars; servers.vars = lambda m: (vars_(m).update(main=None), {})[1]"
    assert click_is_imported(without_run)


def test_a_uvicorn_that_is_imported_already_stays_as_it_is():
    """Where something else uses it in the same process, nothing is replaced."""
    assert click_is_imported("import uvicorn; kept = uvicorn.Server; assert kept is not None")
