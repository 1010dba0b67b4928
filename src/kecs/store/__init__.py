"""DuckDB, and the state of ECS in it. `kecs.store.ecs.Store` is the whole of it to others."""
