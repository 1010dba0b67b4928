"""Tests of the data path, on real sockets."""
