"""Texts that follow a schema, a regular expression or a choice."""
