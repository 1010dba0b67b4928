"""Tests of the command line with scripted daemons; tests/process has the real ones."""
