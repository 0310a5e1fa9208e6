"""Write the OpenAPI document to stdout, as it is published in docs/openapi.json."""

import json
import sys

from llm_engine.server.app import document


def main() -> None:
    """Usage: python -m llm_engine.server.openapi_main."""
    json.dump(document(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
