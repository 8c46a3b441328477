"""Weights and descriptions, read as data."""
