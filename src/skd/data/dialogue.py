"""The task ``dialogue``: two people agree on what, where, when; say in one sentence what they agreed on.

Proposals are countered, counter-offers are accepted or refused, a third person may ask to join. The wording of dialogue
and summary varies on purpose: a summary is right when all its facts are, whatever words carry them.
"""

from __future__ import annotations

from dataclasses import dataclass

from skd.data.rows import Draws, Row, Split, distinct_rows

__all__ = ["WORDS", "Facts", "parse", "rows", "score"]

# fmt: off
PEOPLE = (
    "anna", "ben", "clara", "david", "emma", "felix", "greta", "hugo", "ida", "jonas", "karl", "lena", "mia", "nils",
    "oskar", "paula", "rosa", "simon", "tom", "vera",
)
ACTIVITIES = (
    "swim", "cook", "paint", "dance", "sing", "climb", "skate", "sail", "jog", "read", "study", "train", "draw",
    "skip", "box", "row",
)
PLACES = (
    "park", "lake", "school", "beach", "station", "harbour", "museum", "club", "library", "garden", "castle", "river",
    "tower",
)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
TIMES = ("noon", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# fmt: on
CHOICES = {"activity": ACTIVITIES, "place": PLACES, "day": DAYS, "time": TIMES}
"""What the two negotiate about, by kind."""

# Every text is words separated by single spaces. {a} and {b} are the two people, {c} is the third.
OPENINGS = (
    "{a} : shall we {activity} at the {place} on {day} at {time} ?",
    "{a} : let us meet at the {place} on {day} at {time} to {activity} .",
    "{a} : i want to {activity} on {day} at {time} . how about the {place} , {b} ?",
    "{a} : are you free on {day} , {b} ? we could {activity} at the {place} at {time} .",
)
AGREEMENTS = ("{b} : good idea .", "{b} : yes , i would love to .", "{b} : sure , {a} .")
COUNTERS = {
    "activity": ("{b} : could we {new} instead ?", "{b} : i would rather {new} than {old} ."),
    "place": ("{b} : not {old} , please . how about {new} ?", "{b} : i like {new} more than {old} ."),
    "day": ("{b} : not {old} , please . how about {new} ?", "{b} : i would rather come on {new} than on {old} ."),
    "time": ("{b} : not {old} , please . how about {new} ?", "{b} : could we meet at {new} instead ?"),
}
# Every answer to a counter-offer names what holds from then on.
ACCEPTED = ("{a} : fine , {new} then .", "{a} : sure , {new} works for me .", "{a} : good idea , {new} .")
REFUSED = ("{a} : no , rather {old} .", "{a} : sorry , {old} please .", "{a} : that is bad for me , only {old} works .")
REQUESTS = ("{c} : may i come too ?", "{c} : can i join you ?", "{c} : i would love to come .")
WELCOMES = ("{a} : of course , {c} .", "{b} : sure , join us .", "{a} : yes , please .")
REJECTIONS = ("{b} : sorry , not this time .", "{a} : no , sorry , {c} .", "{a} : that is just for us .")
CLOSINGS = ("{b} : see you then .", "{a} : great .", "{b} : fine .")
# In order of appearance: naming them in any order, a two-layer model names one of them twice for a long time.
PAIR, TRIO = "{a} and {b}", "{a} , {b} and {c}"
SUMMARIES = (
    "{people} will {activity} at the {place} on {day} at {time} .",
    "on {day} at {time} , {people} will {activity} at the {place} .",
    "{people} meet at the {place} on {day} at {time} to {activity} .",
    "at {time} on {day} , {people} go to the {place} to {activity} .",
)


def _words() -> tuple[str, ...]:
    texts = [
        *(OPENINGS + AGREEMENTS + ACCEPTED + REFUSED + REQUESTS + WELCOMES + REJECTIONS + CLOSINGS),
        *(text for texts in COUNTERS.values() for text in texts),
        *(PAIR, TRIO, *SUMMARIES),
    ]
    words = dict.fromkeys(word for text in texts for word in text.split() if not word.startswith("{"))
    named = (PEOPLE, *CHOICES.values())
    return ("=", *words, *(choice for choices in named for choice in choices))


WORDS = _words()
"""Every word of prompts and responses, once."""


@dataclass(frozen=True)
class Facts:
    """What was agreed on."""

    people: frozenset[str]
    activity: str
    place: str
    day: str
    time: str


def parse(text: str) -> Facts | None:
    """The facts a summary states; None unless it names at least two people, nobody twice, and one of each other kind.

    Wording is free, so the words in between are not looked at.
    """
    words = text.split()
    people = [word for word in words if word in PEOPLE]
    named = {kind: [word for word in words if word in choices] for kind, choices in CHOICES.items()}
    if len(people) < 2 or len(set(people)) < len(people) or any(len(found) != 1 for found in named.values()):
        return None
    return Facts(frozenset(people), **{kind: found[0] for kind, found in named.items()})


def score(row: Row, response_text: str) -> bool:
    """Whether the response states all facts of the reference and no other."""
    facts = parse(response_text)
    return facts is not None and facts == parse(row.response or "")


def rows(split: Split, size: int, seed: int) -> list[Row]:
    """``size`` distinct dialogues of ``split`` with their summaries."""
    return distinct_rows(_draw, split, size, seed)


def _draw(draws: Draws) -> Row:
    a, b, c = draws.sample(PEOPLE, 3)
    plan = {kind: draws.pick(choices) for kind, choices in CHOICES.items()}
    lines = [draws.pick(OPENINGS).format(a=a, b=b, **plan)]
    lines += _negotiation(draws, a, b, plan)
    people = PAIR.format(a=a, b=b)
    if draws.chance(40):
        joins = draws.chance(70)
        answer = draws.pick(WELCOMES if joins else REJECTIONS)
        lines += [draws.pick(REQUESTS).format(c=c), answer.format(a=a, b=b, c=c)]
        people = TRIO.format(a=a, b=b, c=c) if joins else people
    if draws.chance(30):
        lines.append(draws.pick(CLOSINGS).format(a=a, b=b))
    return Row(" ".join([*lines, "="]), draws.pick(SUMMARIES).format(people=people, **plan))


def _negotiation(draws: Draws, a: str, b: str, plan: dict[str, str]) -> list[str]:
    """The lines after the opening; what is accepted changes ``plan`` in place."""
    counters = draws.pick((0, 0, 1, 1, 2))
    if not counters:
        return [draws.pick(AGREEMENTS).format(a=a, b=b)]
    lines = []
    for _ in range(counters):
        kind = draws.pick(tuple(CHOICES))
        old = plan[kind]
        new = draws.pick([choice for choice in CHOICES[kind] if choice != old])
        accepted = draws.chance(60)
        answer = draws.pick(ACCEPTED if accepted else REFUSED)
        the = "the " if kind == "place" else ""
        named = {"a": a, "b": b, "old": the + old, "new": the + new}
        lines += [draws.pick(COUNTERS[kind]).format(**named), answer.format(**named)]
        plan[kind] = new if accepted else old
    return lines
