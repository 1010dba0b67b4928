"""What a forward is: its spec, its state machine, its balance and its delays. Pure."""
