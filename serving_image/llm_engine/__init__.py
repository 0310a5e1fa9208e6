"""A paged, continuously batched inference engine. It knows nothing of Kubernetes."""
