"""The view Load."""
