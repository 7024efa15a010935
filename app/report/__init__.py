"""A run, or one view of it, as a single HTML file that opens anywhere and asks nobody for anything."""
