"""Methods side by side, layers one at a time, and the original failures."""
