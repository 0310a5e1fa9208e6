"""The decoder: one transformer for every family, as plain tensors."""
