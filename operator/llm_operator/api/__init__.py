"""The custom resources as pydantic models, and the names that all parts agree on."""
