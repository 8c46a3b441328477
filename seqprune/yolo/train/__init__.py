"""Ultralytics' training, in the shape that a network was given."""
