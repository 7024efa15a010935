"""Training recipes for the sample checkpoints; they need torch, transformers, tokenizers and numpy alone."""
