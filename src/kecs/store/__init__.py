"""The state of ECS on disk (DuckDB). Only the control plane opens it."""
