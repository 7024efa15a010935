"""The view Groups."""
