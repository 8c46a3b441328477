"""Images and labels, as Ultralytics' users keep them."""
