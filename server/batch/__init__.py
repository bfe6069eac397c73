"""An archive of clips into tables: where they come from, what is kept of each, and who works."""
