"""Protocol cores: bytes in, events out. No I/O, no clock; see `docs/design/architecture.md`."""
