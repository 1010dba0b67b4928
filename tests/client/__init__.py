"""Tests of the clients of both daemons, and of starting them; the daemons are scripted."""
