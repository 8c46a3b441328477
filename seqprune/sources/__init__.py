"""Networks and their data, as a caller names them: objects, files, and functions that build them."""
