"""The view Try it."""
