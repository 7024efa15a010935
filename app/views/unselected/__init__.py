"""The view Unselected."""
