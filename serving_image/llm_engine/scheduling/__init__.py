"""Which tokens of which requests the next step computes. Pure: no tensors, no clock, no chance."""
