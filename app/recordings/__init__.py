"""Models that are recorded from the app: what can be, what is, and how far it is."""
