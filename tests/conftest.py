"""What all tests share."""

import os
from pathlib import Path

from hypothesis import settings

# A busy machine must not fail a test: no example has a time limit of its own. The gate looks at the
# same examples every time, so that what passes once passes again; `make fuzz` looks at new ones.
settings.register_profile("gate", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))

# Without a GPU, Triton's kernels run in its interpreter; it has to know before it is imported.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
