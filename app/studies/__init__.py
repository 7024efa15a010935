"""Knock-outs that are made from the command line or in the app."""
