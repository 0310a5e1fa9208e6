"""Function calls: which format a model speaks, and how its text becomes calls."""
