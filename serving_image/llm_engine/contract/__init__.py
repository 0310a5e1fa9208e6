"""What others may know of the engine without importing torch.

The operator, the gateway and the tests import these modules; the engine holds itself to them.
"""
