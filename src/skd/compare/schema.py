"""The plan file of a comparison as typed values; ``PlanConfig`` is the root, docs of the fields stand under them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from skd.config.fields import Count, InRange, PathText, Real, Section, Seed, Text, not_empty, refused
from skd.config.sources import TaskName

__all__ = ["BudgetConfig", "Changes", "ItemsConfig", "PlanConfig", "SettingConfig", "StageConfig", "TuneConfig"]


def _name(value: str) -> str:
    # Names become directories.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}", value):
        raise PydanticCustomError("bad_value", "{expected}", {"expected": "a name of letters, digits, _, - and ."})
    return value


def _list_of_one(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("bad_value", "{expected}", {"expected": "a list in which each stands once"})
    return values


Name = Annotated[Text, AfterValidator(_name)]
Changes = dict[Text, JsonValue]
"""Keys of a run config with their values, as sections or with dots: ``policy.gate.k: 5``."""


class ItemsConfig(Section):
    """Items on which students are measured; greedy responses, the task's own metric."""

    task: Text
    """number_words, dialogue, toy_translation, sums; with data gsm8k, dialogsum, translation, math or a task file."""
    data: PathText | None = None
    """File of the rows, for tasks that are not generated."""
    split: Literal["train", "validation", "test"] = "test"
    """Part of a generated task."""
    size: Count | None = None
    """Number of items; null: 1,000 of a generated task, or the whole file."""
    seed: Seed = 0
    """Draws the rows of a generated task."""
    max_new_tokens: Count | None = None
    """Longest response; null: the task's own."""


Items = Annotated[tuple[ItemsConfig, ...], AfterValidator(not_empty), BeforeValidator(_list_of_one)]


class SettingConfig(Section):
    """One situation in which all methods are compared: a task, a starting student, an amount of data."""

    config: Changes = Field(default_factory=dict)
    """Changes to the base for this setting."""
    evaluation: Items | None = None
    """Items of this setting; null: the plan's."""


class BudgetConfig(Section):
    """Every method once more, with as many steps as cost the same."""

    kind: Literal["seconds", "cpu_seconds", "teacher_flops"]
    """What is equal: seconds of training, those of the processor (on a shared machine), or the teacher's arithmetic."""
    like: Text | None = None
    """As much as this method spends in its steps, in the same setting."""
    amount: Annotated[Real, AfterValidator(InRange(0, open_low=True))] | None = None
    """Or this much."""
    methods: tuple[Text, ...] | None = None
    """Only these; null: all. What costs the same already, within 10 %, is not run again."""

    @model_validator(mode="after")
    def _one_measure(self) -> BudgetConfig:
        if (self.like is None) == (self.amount is None):
            raise refused("like", "and amount say how much, and one of them is needed", "write one of the two")
        return self


class TuneConfig(Section):
    """The same trials for every method in every setting; the best on held-out items is what the method is run with."""

    trials: Annotated[tuple[Changes, ...], AfterValidator(not_empty)]
    """Each a set of changes to the config; the first of equally good ones is taken."""
    items: ItemsConfig
    """Items that decide; not those of the evaluation."""
    seed: Seed = 1000
    """Seed of the trials."""


class StageConfig(Section):
    """A model that is made once, before the cells; ``stage:NAME`` stands for it where a model is named."""

    config: JsonValue = None
    """A run config, inline or its path: the stage is the student it trains."""
    fresh: PathText | None = None
    """Or a model whose architecture and tokenizer are taken, with random weights."""
    words: TaskName | None = None
    """Of a fresh one: the built-in task whose words are its vocabulary; null: that of the model."""
    seed: Seed = 0
    """Draws random weights."""

    @model_validator(mode="after")
    def _one_kind(self) -> StageConfig:
        if (self.config is None) == (self.fresh is None):
            raise refused("config", "and fresh say how the model is made, and one of them is needed", "write one")
        if self.words is not None and self.fresh is None:
            raise refused("words", "is the vocabulary of a fresh model, and this one is trained", "leave it out")
        return self


class PlanConfig(Section):
    """A comparison: methods x seeds x settings, from one starting student in each setting."""

    output: PathText
    """Directory of everything that is made."""
    base: JsonValue
    """Run config that all cells share, inline or its path as seen from the plan. Its output is not used."""
    methods: dict[Name, Changes]
    """Variants by name. One that names a method drops the base's policy and objective."""
    settings: Annotated[dict[Name, SettingConfig], AfterValidator(not_empty)] = Field(
        default_factory=lambda: {"default": SettingConfig()}
    )
    """Situations by name."""
    seeds: Annotated[tuple[Seed, ...], AfterValidator(not_empty), AfterValidator(_different)] = (0, 1, 2)
    """Seeds of the runs: order of the rows, and sampling."""
    reference: Text
    """Method that the others are tested against."""
    evaluation: Items
    """Items that the finished students are measured on."""
    curve: ItemsConfig | None = None
    """Items measured at every validation while training; null for none."""
    budgets: tuple[BudgetConfig, ...] = ()
    """Further rows, with equal cost in place of equal steps."""
    tune: TuneConfig | None = None
    """Choice of settings, alike for all; null for none."""
    stages: dict[Name, StageConfig] = Field(default_factory=dict)
    """Models made first, in this order; a stage may build on earlier ones."""
    plotted: tuple[Text, ...] | None = None
    """Methods in the plots; null: the first seven."""
