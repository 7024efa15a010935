"""The view Routes."""
