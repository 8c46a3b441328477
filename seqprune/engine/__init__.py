"""One run: what is asked of a network and its data, and what is done with the answers."""
