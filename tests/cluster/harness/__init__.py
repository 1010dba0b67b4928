"""A real Kubernetes on this computer, for tests and by hand: no registry, no Docker, no systemd.

`cluster.Cluster.up()` is the door; the modules below it are, from the outside in: `cluster`, `controlplane`
and `node` (which programs with which flags, and why), `component` (one of them), `machine` (namespaces),
`network`, `certificates`, `images`, `cgroups`, `ledger` (what was made, and its unmaking after a crash),
`build` (the programs compiled from source) and `procs`.
"""
