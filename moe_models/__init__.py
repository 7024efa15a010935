"""Mixture-of-Experts models and training recipes that stand on transformers alone."""
