"""The view Causes."""
