"""Model files: where they come from, what their headers say, and their tensors.

Headers are read without torch, so that `llm-engine inspect` is quick and takes no memory.
"""
