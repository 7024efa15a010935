"""The view Compare."""
