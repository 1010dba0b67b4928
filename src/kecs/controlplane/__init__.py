"""The control plane: the daemon that serves the ECS API and runs tasks."""
