"""The decoder: a transformer of the Llama family as plain tensors."""
