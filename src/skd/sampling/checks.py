"""What the sampler refuses, and in which words."""

from __future__ import annotations

from skd.errors import ConfigError, DataError, NumericsError, Problem
from skd.sampling.slots import Request
from skd.types import Prompts

__all__ = ["not_finite", "require_positive", "require_room"]


def require_positive(**counts: int) -> None:
    """Every count is 1 or more (ConfigError naming each that is not)."""
    problems = [
        Problem("SKD-C07", name, f"is {count}; it must be 1 or more", "write a positive number")
        for name, count in counts.items()
        if count < 1
    ]
    if problems:
        raise ConfigError(problems)


def require_room(prompts: Prompts, cap: int, context: int) -> None:
    """Every prompt has a token, and fits both models' context together with the cap (DataError)."""
    for row, ids in zip(prompts.sample_ids, prompts.ids, strict=True):
        if len(ids) == 0:
            raise DataError(Problem("SKD-D05", f"prompt {row}", "has no tokens", "give it at least one token"))
        if len(ids) + cap > context:
            raise DataError(
                Problem(
                    "SKD-D09",
                    f"prompt {row}",
                    f"prompt {len(ids)} + response {cap} = {len(ids) + cap} tokens exceed the context of {context}",
                    "shorten the prompt or lower max_new_tokens",
                )
            )


def not_finite(request: Request, role: str) -> NumericsError:
    """The error for a model whose output is not finite."""
    return NumericsError(
        Problem(
            "SKD-G06",
            f"prompt {request.sample_id}",
            f"the {role}'s hidden states are not finite",
            f"check the {role}'s weights and dtype (float16 overflows; use bfloat16 or float32)",
        )
    )
