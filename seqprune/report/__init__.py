"""What a run found, for people: text, pages, its folder."""
