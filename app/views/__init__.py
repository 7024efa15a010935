"""One file, one question that the user asks."""
