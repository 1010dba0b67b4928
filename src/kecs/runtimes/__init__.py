"""What runs a task: one adapter for each kind of place."""
