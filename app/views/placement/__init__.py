"""The view Placement."""
