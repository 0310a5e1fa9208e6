"""Keys and values in blocks, and attention over them, behind one interface."""
