"""From what is observed to what should be: pure decisions, no I/O and no clock."""
