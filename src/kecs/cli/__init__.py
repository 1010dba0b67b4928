"""The command line: asks and shows, never decides."""
