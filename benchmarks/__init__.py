"""Measurements beside a peer: same machine, same run, alternating. `make bench` prints one table."""
