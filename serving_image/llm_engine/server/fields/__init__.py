"""The fields of each request, as pydantic models: honoured, or refused by name."""
