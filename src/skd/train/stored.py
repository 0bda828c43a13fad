"""Training from stored responses: what the files must hold when no teacher is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from skd.config import DataConfig, DataSource, RoutedTeacher
from skd.data.rows import Row
from skd.data.sources import load_sets
from skd.errors import ConfigError, Problem
from skd.models import Pair
from skd.models.vocabulary import vocabulary_digest
from skd.objectives import Objective, TeacherTopK
from skd.responses import StoredResponses, open_responses
from skd.types import Prompts

__all__ = ["open_sets", "prompts_of", "require_evidence"]


def open_sets(
    data: DataConfig, *sets: Sequence[DataSource], teacher: RoutedTeacher | None = None
) -> list[Sequence[Row] | StoredResponses]:
    """The rows of each set as text, or its stored responses as they are; a set without sources has no rows. With a
    ``teacher`` that is several, each row names the one it has.

    ``data`` says what happens to rows that cannot be read or are empty.
    Raises DataError with the problems of all sets.
    """
    texts = [[source for source in sources if source.kind != "responses"] for sources in sets]
    rows: list[Sequence[Row] | StoredResponses] = [
        *load_sets(*texts, on_bad_row=data.on_bad_row, on_empty=data.on_empty, teacher=teacher)
    ]
    for number, sources in enumerate(sets):
        for source in sources:
            if source.kind == "responses":
                rows[number] = open_responses(source.path)
    return rows


def prompts_of(responses: StoredResponses, pair: Pair) -> Prompts:
    """Stored responses as a data set for this pair. Raises ModelError when its tokenizer has another vocabulary."""
    responses.require_vocabulary(vocabulary_digest(pair.tokenizer))
    return responses.prompts


def require_evidence(objective: Objective, responses: Sequence[StoredResponses]) -> None:
    """The objective can be computed from what the files hold of the teacher; ConfigError with all that it lacks."""
    if not objective.needs_teacher:
        return
    problems = [problem for stored in responses for problem in _lacking(objective, stored)]
    if responses and objective.temperature != 1.0:
        found = f"is {objective.temperature}, and stored log-probs of the teacher are those at temperature 1"
        problems.append(Problem("SKD-T10", "objective.temperature", found, "write 1, or name the teacher"))
    if problems:
        raise ConfigError(problems)


def _lacking(objective: Objective, stored: StoredResponses) -> Iterator[Problem]:
    place, top_k, weights = str(stored.path), stored.index.top_k, objective.weights
    if top_k is None:
        found = "holds responses without evidence, and the objective needs the teacher"
        remedy = "generate them with --evidence top_k=64, name the teacher, or write objective.loss: nll"
        yield Problem("SKD-C10", place, found, remedy)
    elif isinstance(weights, TeacherTopK) and weights.k > top_k:
        found = f"holds the teacher's {top_k} most probable ids, and objective.weights.k is {weights.k}"
        yield Problem("SKD-C10", place, found, f"lower it, or generate with --evidence top_k={weights.k}")
