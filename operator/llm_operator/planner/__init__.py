"""Which hardware a model needs: memory, what the cluster has, and the choice. Pure."""
