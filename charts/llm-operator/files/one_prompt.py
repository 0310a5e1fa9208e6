"""Send one prompt through the gateway and print the answer: `helm test` runs this in a pod.

Arguments: the gateway's URL, seconds to wait, and a served name ("" takes the first there is).
"""

import json
import sys
import urllib.error
import urllib.request
from typing import Any


def ask(url: str, timeout_s: float, body: dict[str, Any] | None = None) -> Any:
    """Return the JSON that GET, or POST where there is a body, answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return json.load(answer)


def main(gateway: str, timeout: str, model: str) -> str:
    """Return the line to print; exit with a reason where the gateway or the model fails."""
    timeout_s = float(timeout)
    try:
        names = [entry["id"] for entry in ask(f"{gateway}/v1/models", timeout_s)["data"]]
        if not model and not names:
            return "The gateway answers. There is no LLMDeployment yet, so nothing was asked of it."
        if model and model not in names:
            sys.exit(f"No model {model!r}: the gateway serves {', '.join(names) or 'none'}.")
        chosen = model or names[0]
        prompt = [{"role": "user", "content": "What is the capital of France?"}]
        body = {"model": chosen, "messages": prompt, "max_tokens": 24, "temperature": 0}
        answer = ask(f"{gateway}/v1/chat/completions", timeout_s, body)
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.url} answered {error.code}: {error.read(2000).decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{gateway} cannot be reached: {error}")
    return f"{chosen}: {answer['choices'][0]['message']['content']}"


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
