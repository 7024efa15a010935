"""The trace store: a folder that is written while a model runs and read while it lies there."""
