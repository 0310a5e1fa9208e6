"""What all tests share."""

from hypothesis import settings

# A busy machine must not fail a test: no example has a time limit of its own.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
