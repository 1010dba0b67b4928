"""Programs of the project itself: set-up, demo, generated documentation."""
