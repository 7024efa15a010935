"""The view Tokens."""
