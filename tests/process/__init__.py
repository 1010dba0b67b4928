"""Tests with real daemons, real processes and real sockets, in temporary homes."""
