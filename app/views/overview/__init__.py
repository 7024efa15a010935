"""The view Overview."""
