"""Models that are recorded from the app: what can be, what is, and how far it is."""

__all__ = ["PAGE"]

# Its path in the app.
PAGE = "recordings"
