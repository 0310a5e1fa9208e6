"""Let `python -m llm_operator.cli` do what `llm-operator` does."""

import sys

from llm_operator.cli import main

sys.exit(main())
