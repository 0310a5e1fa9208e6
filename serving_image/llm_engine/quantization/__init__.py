"""Linear layers whose weights are kept in fewer bits than they compute in."""
