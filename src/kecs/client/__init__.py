"""The one door to both daemons: their types, their clients, and how they are started."""
