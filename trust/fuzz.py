"""Mutated config and data files: each is accepted with its meaning or refused in plain words, and none takes long."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import yaml

from skd import cli
from skd.config.sources import FileSource
from skd.data.sources import load_rows
from skd.errors import DataError
from trust.child import fork
from trust.readings import misreadings
from trust.tally import Bench, Tally
from trust.toy import MODES

__all__ = ["fuzz"]

BATCH = 250
LIMIT_SECONDS = 5.0
RECIPES = Path(__file__).parent.parent / "recipes"

_WORDS = """
no ~ null 012 0x1F 0b1 1_000 1e-5 1e999 .inf .nan -0.0 12:30:45 2024-13-45 true 'x' "x" [] {} [1,2] &a *a !!int << ? - |
> # % @ ` !!python/object/apply:os.system hf_abcdefghijklmnopqrstuvwxyz012345 ../../etc/passwd ~/x
"""
_MARKS = (
    " ",
    "\t",
    "\n",
    ": ",
    "- ",
    "\x00",
    "\ufeff",
    "\u2028",
    "\u202e",
    "\ud7ff",
    "9" * 5000,
    "[" * 200,
    "{a: " * 50,
)
NASTY = (*_WORDS.split(), *_MARKS)

Case = Callable[[Random], str | None]
"""One trial: what is wrong with the answer, or None."""


def fuzz(bench: Bench) -> Tally:
    """As many config files as data files."""
    tally = Tally()
    configs, files = _config_texts(bench), _data_files()
    for suffix, data in files.items():  # what its reader imports is not a trial's to wait for
        path = bench.room / f"whole{suffix}"
        path.write_bytes(data)
        load_rows([FileSource(path=str(path))])
    kinds: dict[str, Case] = {"configs": partial(_config, configs), "data files": partial(_data, files)}
    for kind, case in kinds.items():
        done = 0
        while done < bench.size.fuzzed:
            done += _batch(bench, tally, kind, case, min(BATCH, bench.size.fuzzed - done))
    return tally


def _batch(bench: Bench, tally: Tally, kind: str, case: Case, count: int) -> int:
    """Trials in one child, until one of them hangs or crashes it; returns how many were made."""
    directory = bench.room / "batch"
    shutil.rmtree(directory, ignore_errors=True)
    random = Random(bench.random.random())

    def work() -> None:
        # The default action ends the process, also inside of native code.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        with open("results.jsonl", "w", buffering=1) as results:
            for _ in range(count):
                signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
                results.write(json.dumps(case(random)) + "\n")
                signal.setitimer(signal.ITIMER_REAL, 0)

    ended = fork(work, directory).wait(limit=count * LIMIT_SECONDS)
    found = [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]
    for complaint in found:
        tally.note(kind, *([complaint] if complaint else []))
    if ended.code:
        kept = shutil.copytree(directory, bench.room / f"kept-{kind}-{tally.counts['fuzzed']}".replace(" ", "-"))
        what = "a hang" if ended.code == -signal.SIGALRM else f"exit code {ended.code}: {ended.output[-500:]}"
        tally.note(kind, f"{what}; the file is in {kept}")
    tally.counts["fuzzed"] += len(found) + bool(ended.code)
    return len(found) + bool(ended.code)


def _config_texts(bench: Bench) -> list[tuple[str, str]]:
    """Valid files with their paths: the recipes, which include each other, and the toy's modes with all defaults."""
    texts = [(str(path.relative_to(RECIPES.parent)), path.read_text()) for path in sorted(RECIPES.rglob("*.yaml"))]
    for mode in MODES:
        # Through JSON, since equal parts would become YAML's anchors.
        text = yaml.safe_dump(json.loads(json.dumps(bench.toy.config(mode))), sort_keys=False)
        texts += [("config.yaml", text)] * (len(texts) // len(MODES))
    return texts


def _mutated(text: str, random: Random) -> str:
    """One to three changes, of characters, lines, keys or values."""
    for _ in range(random.randint(1, 3)):
        lines = text.splitlines(keepends=True) or [""]
        line, at = random.randrange(len(lines)), random.randrange(len(text) + 1)
        choice = random.randrange(7)
        if choice == 0:
            text = text[:at] + random.choice(NASTY) + text[at + random.randrange(3) :]
        elif choice == 1:
            text = text[:at] + text[at + random.randrange(20) :]
        elif choice == 2:
            text = text[:at] + chr(random.randrange(32, 127)) + text[at + 1 :]
        elif choice == 3:
            text = "".join([*lines[:line], lines[random.randrange(len(lines))], *lines[line:]])
        elif choice == 4:
            text = "".join([*lines[:line], *lines[line + 1 :]])
        elif choice == 5:
            value = random.choice([*NASTY, str(random.randint(-5, 99)), f"{random.uniform(-1, 2):.3g}"])
            name, colon, _ = lines[line].partition(":")
            text = "".join([*lines[:line], f"{name}{colon} {value}\n", *lines[line + 1 :]])
        else:
            lines[line] = " " * random.randrange(5) + lines[line].lstrip()
            text = "".join(lines)
    return text


def _config(texts: Sequence[tuple[str, str]], random: Random) -> str | None:
    name, whole = random.choice(texts)
    text = _mutated(whole, random)
    if not Path("recipes").is_dir():
        shutil.copytree(RECIPES, "recipes")
    Path(name).write_bytes(text.encode("utf-8", "surrogatepass"))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["train", name, "--print-config"])
    Path(name).write_text(whole)
    said = err.getvalue()
    if code == 2 and said.startswith("error[SKD-") and "Traceback" not in said:
        return None
    if code or "Traceback" in said:
        return f"exit code {code}: {said[-300:]!r} for {text!r}"
    wrong = misreadings(text, yaml.safe_load(out.getvalue()))
    return f"{wrong} in {text!r}" if wrong else None


def _data_files() -> dict[str, bytes]:
    """Valid files of every format, by suffix."""
    rows = [{"prompt": f"What is {i} × 2?\n", "response": f"“{2 * i}”, of course"} for i in range(6)]
    table = io.StringIO()
    writer = csv.DictWriter(table, ["prompt", "response"])
    writer.writeheader()
    writer.writerows(rows)
    return {
        ".jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(),
        ".json": json.dumps(rows, indent=1).encode(),
        ".csv": table.getvalue().encode(),
    }


def _data(files: dict[str, bytes], random: Random) -> str | None:
    suffix = random.choice(sorted(files))
    data = bytearray(_mutated(files[suffix].decode(), random).encode("utf-8", "surrogatepass"))
    for _ in range(random.randrange(3)):
        if data:
            data[random.randrange(len(data))] = random.randrange(256)
    path = Path(f"data{suffix}")
    path.write_bytes(data)
    try:
        rows = load_rows([FileSource(path=str(path))])
    except DataError as error:
        plain = all(problem.code and problem.place and problem.found and problem.remedy for problem in error.problems)
        return None if plain else f"{error} for {bytes(data)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error} for {suffix} {bytes(data)!r}"
    if suffix == ".csv":
        return None
    wrong = _other_rows(suffix, bytes(data), [(row.prompt, row.response) for row in rows])
    return f"{suffix} {bytes(data)!r} became {rows}" if wrong else None


def _other_rows(suffix: str, data: bytes, rows: list[tuple[str, str | None]]) -> bool:
    """Whether the rows are not those that the standard library reads."""
    text = data.decode("utf-8-sig")
    found = [json.loads(line) for line in text.split("\n") if line.strip()] if suffix == ".jsonl" else json.loads(text)
    return [(row["prompt"], row["response"]) for row in found] != rows
