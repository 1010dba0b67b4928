"""The runtime `kubernetes`: a task is one Pod of a cluster. Pure mappings beside what asks the cluster."""
