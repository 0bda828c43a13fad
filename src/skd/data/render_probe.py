"""Renders a chat template in a process of its own; run as a script by ``skd.data.templates``, never imported.

Only whether it comes to an end is of interest: what it writes, or why it refuses, is found out with the tokenizer's own
renderer, which this one resembles.
"""

import json
import re
import sys
import time
from contextlib import suppress


def limit(seconds: int, num_bytes: int) -> None:
    """End the process that computes longer or wants more memory; without effect where the system has no such limits."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        # Computing and not waiting is counted, so that a busy machine makes no template look bad.
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + seconds, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


def render(template: str, conversations: list[list[dict[str, str]]], tokens: dict[str, str]) -> None:
    """Render every conversation, with and without the opening of an assistant's turn."""
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value)
    environment.globals.update(raise_exception=raise_exception, strftime_now=lambda pattern: pattern)
    # A tag of transformers, which only marks what the assistant wrote.
    compiled = environment.from_string(re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template))
    for messages in conversations:
        for opens in (False, True):
            with suppress(jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
                compiled.render(messages=messages, add_generation_prompt=opens, **tokens)


if __name__ == "__main__":
    task = json.load(sys.stdin)
    limit(task["seconds"], task["bytes"])
    try:
        render(task["template"], task["conversations"], task["tokens"])
    except MemoryError:
        sys.exit("memory")
    except Exception:  # Syntax errors and the like: the tokenizer's own renderer tells of them.
        sys.exit(0)
