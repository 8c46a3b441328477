"""What removal broke, mended without training."""
