"""The control plane: operator, gateway and command line. No torch."""
