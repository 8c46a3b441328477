"""What channels do: the places that matter, what layers read there, and its moments, batch by batch."""
