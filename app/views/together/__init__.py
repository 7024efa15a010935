"""The view Together."""
