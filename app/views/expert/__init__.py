"""The view Expert."""
