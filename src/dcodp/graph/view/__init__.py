"""The coupling graph for people: as a table (`explain`), by its patterns, and drawn."""
