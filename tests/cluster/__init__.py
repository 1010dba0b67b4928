"""Tests against a real Kubernetes on this machine; run by `make test-cluster`, not by `make test`."""
