"""The security check finds each planted call, leaves their safe forms alone, and the tree itself is clean."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts.check_security import EXCEPTIONS, check, check_source
from scripts.findings import ROOT


def rules(source: str) -> list[str]:
    return sorted({finding.rule for finding in check_source("scripts/x.py", ast.parse(source))})


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("write", "path.write_text(text)"),
        ("write", "open(path, 'w')"),
        ("write", "path.open('ab', buffering=0)"),
        ("write", "open(path, mode='x')"),
        ("network", "import socket"),
        ("network", "from urllib.request import urlopen"),
        ("network", "import requests"),
        (None, "from skd.text import write_text\nwrite_text(path, text)"),
        (None, "open(path, encoding='ascii')"),
        (None, "path.open('rb')"),
        (None, "from urllib.parse import urlsplit"),
    ],
)
def test_the_package_writes_and_connects_in_few_places(rule: str | None, source: str) -> None:
    found = check_source("src/skd/x.py", ast.parse(source))
    assert [finding.rule for finding in found] == ([] if rule is None else [rule])
    assert rules(source) == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("eval", "eval(text)"),
        ("eval", "exec(text)"),
        ("eval", "compile(text, 'f', 'exec')"),
        ("eval", "import builtins as b\nb.eval(text)"),
        ("eval", "__import__(name)"),
        ("eval", "from ast import literal_eval\nliteral_eval(text)"),
        ("pickle", "import pickle"),
        ("pickle", "from pickle import loads"),
        ("pickle", "import joblib.parallel"),
        ("pickle", "import marshal"),
        ("pickle", "import shelve"),
        ("pickle", "import dill as serializer"),
        ("pickle", "from torch.distributed import checkpoint"),
        ("pickle", "import torch\ntorch.load(path)"),
        ("pickle", "from torch import load as read\nread(path)"),
        ("pickle", "import torch as t\nt.save(state, path)"),
        ("pickle", "import numpy as np\nnp.load(path, allow_pickle=True)"),
        ("pickle", "import numpy as np\nnp.load(path, allow_pickle=flag)"),
        ("pickle", "frame.to_pickle(path)"),
        ("pickle", "accelerator.save_state(path)"),
        ("pickle", "accelerator.register_for_checkpointing(x)"),
        ("yaml", "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)"),
        ("yaml", "import yaml\nyaml.unsafe_load(text)"),
        ("yaml", "from yaml import full_load\nfull_load(text)"),
        ("yaml", "import yaml\nclass Lines(yaml.FullLoader): ..."),
        ("sympy", "import sympy\nsympy.sympify(text)"),
        ("sympy", "from sympy.parsing.sympy_parser import parse_expr\nparse_expr(text)"),
        ("shell", "import subprocess\nsubprocess.run(text, shell=True)"),
        ("shell", "import subprocess as s\ns.Popen(text, shell=flag)"),
        ("shell", "import os\nos.system(text)"),
        ("shell", "from os import popen\npopen(text)"),
        ("remote-code", "AutoTokenizer.from_pretrained(path)"),
        ("remote-code", "AutoTokenizer.from_pretrained(path, trust_remote_code=True)"),
        ("remote-code", "AutoTokenizer.from_pretrained(path, trust_remote_code=config.trust)"),
        ("remote-code", "AutoTokenizer.from_pretrained(path, **options)"),
        ("remote-code", "AutoModelForCausalLM.from_config(config)"),
        ("remote-code", "from datasets import load_dataset\nload_dataset('json', data_files=path)"),
        ("safetensors", "AutoModelForCausalLM.from_pretrained(path, trust_remote_code=False)"),
        ("safetensors", "LlamaForCausalLM.from_pretrained(path, trust_remote_code=False, use_safetensors=False)"),
        ("tls", "import requests\nrequests.get(url, timeout=3, verify=False)"),
        ("tls", "session.get(url, verify=False)"),
        ("timeout", "import requests\nrequests.post(url)"),
        ("timeout", "import httpx\nhttpx.Client()"),
        ("timeout", "import httpx\nhttpx.get(url, timeout=None)"),
        ("timeout", "from urllib.request import urlopen\nurlopen(url)"),
        ("timeout", "import requests\nsession = requests.Session()"),
        ("timeout", "from urllib import request\nrequest.urlretrieve(url, path)"),
        ("timeout", "import aiohttp\naiohttp.ClientSession()"),
        ("timeout", "import urllib3\nurllib3.PoolManager()"),
        ("timeout", "import socket\nsocket.create_connection((host, port))"),
        ("tls", "import ssl\nssl._create_unverified_context()"),
        ("tls", "import ssl\ncontext.verify_mode = ssl.CERT_NONE"),
        ("tls", "context.check_hostname = False"),
        ("tls", "session.verify = False"),
        ("bind", "server.bind(('0.0.0.0', 8000))"),
        ("bind", "uvicorn.run(app, host='::')"),
        ("eval", "frame.eval(text)"),
        ("eval", "import pandas as pd\npd.eval(text)"),
        ("import", "import importlib\nimportlib.import_module(name)"),
        ("import", "import runpy\nrunpy.run_path(path)"),
        ("import", "from importlib.util import spec_from_file_location\nspec_from_file_location('x', path)"),
        ("import", "spec.loader.exec_module(module)"),
        ("shell", "import subprocess\nsubprocess.run('ls')"),
        ("shell", "import subprocess\nsubprocess.check_output(f'ls {path}')"),
        ("template", "environment.from_string(text)"),
        ("archive", "import tarfile\ntarfile.open(path).extractall(target)"),
        ("archive", "import shutil\nshutil.unpack_archive(path)"),
        ("temporary", "import tempfile\ntempfile.mktemp()"),
        ("alarm", "import signal\nsignal.alarm(5)"),
        ("alarm", "from signal import ITIMER_REAL, setitimer\nsetitimer(ITIMER_REAL, 5)"),
        ("pickle", "import torch\ntorch.package.PackageImporter(path)"),
        ("pickle", "from torch import serialization\nserialization.load(path)"),
        ("autoescape", "from jinja2 import Environment\nEnvironment(loader=loader)"),
        ("autoescape", "import jinja2\njinja2.Environment(autoescape=False)"),
        ("autoescape", "import jinja2\njinja2.Template(text)"),
    ],
)
def test_each_planted_call_is_found(rule: str, source: str) -> None:
    assert rules(source) == [rule]


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import importlib\nimportlib.import_module('torch')",
        "environment.from_string('{{ x }}')",
        "import socket\nsocket.create_connection((host, port), timeout=3)",
        "server.bind(('127.0.0.1', 8000))",
        "import re\nre.compile(pattern)",
        "import torch\ntorch.compile(model)",
        "import numpy as np\nnp.load(path)\nnp.load(path, allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)\nyaml.compose(text, Loader=yaml.SafeLoader)",
        "import subprocess\nsubprocess.run(['git', 'status'], shell=False)",
        "AutoTokenizer.from_pretrained(path, trust_remote_code=False)",
        "AutoModelForCausalLM.from_pretrained(path, trust_remote_code=False, use_safetensors=True)",
        "tokenizer.save_pretrained(path)",
        "import httpx\nhttpx.Client(timeout=3.0)",
        "from jinja2 import Environment, select_autoescape\nEnvironment(autoescape=select_autoescape())",
        "from safetensors.torch import load_file, save_file\nsave_file(load_file(path), path)",
        "import json\njson.load(stream)",
    ],
)
def test_safe_forms_are_left_alone(source: str) -> None:
    assert rules(source) == []


def planted(root: Path) -> Path:
    (root / "src").mkdir()
    (root / "src" / "bad.py").write_text("import os\nos.system('true')\n", encoding="utf-8")
    return root


def test_an_exception_silences_only_its_rule_in_its_file(tmp_path: Path) -> None:
    root = planted(tmp_path)
    assert [f.rule for f in check(root, {})[0]] == ["shell"]
    assert check(root, {("src/bad.py", "shell"): "reason"})[0] == []
    assert sorted(f.rule for f in check(root, {("src/bad.py", "eval"): "reason"})[0]) == ["shell", "stale-exception"]


def test_message_names_the_place_and_the_way_out(tmp_path: Path) -> None:
    assert [str(finding) for finding in check(planted(tmp_path), {})[0]] == [
        "src/bad.py:2: shell: goes through a shell; use subprocess.run with a list"
    ]


def test_the_tree_is_clean() -> None:
    findings, checked = check(ROOT)
    assert [str(finding) for finding in findings] == []
    assert checked > 10
    assert all(reason for reason in EXCEPTIONS.values())
