"""The app, and the command line: the two doors of the house."""
