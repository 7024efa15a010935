"""The view Tasks."""
