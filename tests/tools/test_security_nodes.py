"""The rules on keys, terminals, pages and telemetry find each planted expression and leave the safe forms alone."""

from __future__ import annotations

import ast

import pytest

from scripts.check_security import check_source


def rules(source: str, path: str = "src/skd/x.py") -> list[str]:
    return sorted({finding.rule for finding in check_source(path, ast.parse(source))})


KEY = "hf_" + "a" * 30

PLANTED = [
    # Rule 8: keys come from the environment only, and few places read them.
    ("secret", f"login('{KEY}')"),
    ("secret", "import os\nos.environ['HF_TOKEN']"),
    ("secret", "import os\nos.environ.get('WANDB_API_KEY', '')"),
    ("secret", "from os import environ\nenviron.pop('DB_PASSWORD')"),
    ("secret", "import os\nos.getenv('SKD_TEACHER_TOKEN')"),
    ("secret", "import os\nos.getenv(name)"),
    ("secret", "import os\ndict(os.environ.items())"),
    ("secret", "import os\nenv = os.environ.copy()"),
    # Rule 11: the template escapes.
    ("markup", "from markupsafe import Markup\nMarkup(text)"),
    ("markup", "import markupsafe\nmarkupsafe.Markup(text)"),
    # Rule 12: control characters are shown as escapes.
    ("terminal", "print(text)"),
    ("terminal", "print('a', text)"),
    ("terminal", "print(f'{path}: {count:,}')"),
    ("terminal", "print(f'{name!r}')"),
    ("terminal", "console.print(text)"),
    ("terminal", "from rich.text import Text\nconsole.print(Text(text))"),
    ("terminal", "import typer\ntyper.echo(text)"),
    ("terminal", "import sys\nsys.stderr.write(text)"),
    # Rule 13: no telemetry, no update check, nothing at import.
    ("telemetry", "import sentry_sdk"),
    ("telemetry", "from opentelemetry.trace import get_tracer"),
    ("telemetry", "ask('https://pypi.org/pypi/skd/json')"),
    ("at-import", "import huggingface_hub"),
    ("at-import", "from datasets import load_dataset"),
    ("at-import", "import wandb"),
]


@pytest.mark.parametrize(("rule", "source"), PLANTED)
def test_each_planted_expression_is_found(rule: str, source: str) -> None:
    assert rules(source) == [rule]


@pytest.mark.parametrize("name", ["api_key", "hf_token", "token", "wandb_password", "credentials"])
def test_no_config_key_and_no_argument_takes_a_key(name: str) -> None:
    field = f"class Section:\n    {name}: str = ''"
    argument = f"def train(config: str, {name}: str = ''): ..."
    assert rules(field, "src/skd/config/models.py") == ["secret"]
    assert rules(argument, "src/skd/cli.py") == ["secret"]
    assert rules(field) == rules(argument) == []


@pytest.mark.parametrize("name", ["tokens", "max_new_tokens", "token_loss", "key_heads", "secretary"])
def test_other_names_are_no_keys(name: str) -> None:
    assert rules(f"class Section:\n    {name}: int = 1", "src/skd/config/models.py") == []


@pytest.mark.parametrize("source", ["ask('https://pypi.org/simple/skd')", f"x = '{KEY}'", "import posthog"])
def test_scripts_have_no_key_and_no_telemetry_either(source: str) -> None:
    assert rules(source, "scripts/x.py") in (["secret"], ["telemetry"])


@pytest.mark.parametrize(
    "source",
    [
        "print()",
        "print('done')",
        "from skd.text import visible\nprint(visible(text), end='')",
        "from skd.text import visible\nprint(f'{visible(name)}: {count:,} of {share:.1f} %')",
        "import json\nprint(json.dumps(record))",
        "from rich.text import Text\nfrom skd.text import visible\nconsole.print(Text(visible(text)))",
        "logger.info('%s', text)",
        "import os\nos.environ.get('WORLD_SIZE', '1')",
        "import os\nos.environ['HF_HOME'] = place",
        "import os\n'HF_TOKEN' in os.environ",
        "def load():\n    import huggingface_hub",
        "path = 'hf_models/gemma'",
        "page = 'https://arxiv.org/abs/2410.11325'",
    ],
)
def test_safe_forms_are_left_alone(source: str) -> None:
    assert rules(source) == []
