"""The view Adapters."""
