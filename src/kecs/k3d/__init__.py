"""A Kubernetes cluster of one's own, made and kept by the programs `k3d` and `docker`.

An adapter beside `kube`: it knows no ECS and no Kubernetes API. Everything here blocks, with a time limit;
the daemons call it on a thread. What the programs really do, measured, is told where it matters.
"""
