"""The forward agent: the daemon that owns every port forward of an instance."""
