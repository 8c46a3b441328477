"""What the engine asks of an Ultralytics network."""
