"""The small process that each local task runs under (docs/design/contracts.md, section 5).

Started as `python -I -S <this folder>/__main__.py <the task's folder>`, with a connection to the
control plane as standard input. Standard library only; nothing slow to import (no typing, dataclasses,
subprocess), since each task pays for it. `kecs.runtimes.local` is the other end; what both must call by the
same name is here.
"""

STATE_FILE = "state.json"
STATE_VERSION = 1
SOCKET = "shim.sock"

TASK_VARIABLE = "KECS_TASK_ARN"
"""In the environment of every process of a task, the shim's too: by it they are known for ours."""
CONTAINER_VARIABLE = "KECS_CONTAINER_NAME"
CHECK_VARIABLE = "KECS_HEALTH_CHECK"
"""In the environment of health checks only."""
