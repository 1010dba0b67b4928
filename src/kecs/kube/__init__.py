"""Kubernetes: its API, its watches, its port-forward tunnels. No ECS in here."""
