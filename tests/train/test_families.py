"""Every method on every family: two steps, export, reload without this library, and an end where the student ends."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import skd
from skd.config import METHODS
from skd.types import Prompts
from tests.tiny import EOS_ID, save_tiny
from tests.train.conftest import ROWS, run_train

FAMILIES = ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mistral", "gpt2"]
HEADS = {"qwen2": (80, 72), "gemma3": (96, 64)}
"""Rows of the padded heads of teacher and student."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        teacher, student = HEADS.get(family, (None, None))
        save_tiny(directory / family / "teacher", family, seed=1, hidden=32, padded_vocab=teacher)
        save_tiny(directory / family / "student", family, seed=2, hidden=16, padded_vocab=student)
    return directory


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", list(METHODS))
def test_two_steps_export_and_reload(places, tmp_path, method, family):
    config = {
        "method": method,
        "teacher": None if method == "sft" else str(places / family / "teacher"),
        "student": str(places / family / "student"),
        "data": {"train": "rows.json"},
        "sampling": {"max_new_tokens": 5},
        "train": {"max_steps": 2, "batch_size": 3, "lr": 0.01, "validate_every": None, "trackers": []},
        "output": str(tmp_path),
    }
    pair = skd.load_pair(config["teacher"], config["student"], device="cpu")
    before = {name: p.detach().clone() for name, p in pair.student.named_parameters()}
    result = run_train(config, pair=pair)
    assert any(not torch.equal(before[name], p) for name, p in pair.student.named_parameters())

    # transformers before 5.23 takes an attention without Gemma2's soft cap unless told.
    attention = pair.student.config._attn_implementation
    reloaded = AutoModelForCausalLM.from_pretrained(
        result.student_dir, attn_implementation=attention, trust_remote_code=False
    ).eval()
    ids = torch.tensor([ROWS.ids[2] + ROWS.references[2]])
    with torch.no_grad():
        assert torch.equal(reloaded(ids).logits, pair.student.eval()(ids).logits)
    assert ends_as_the_student_does(reloaded, skd.load_pair(None, result.student_dir, device="cpu"))


def ends_as_the_student_does(model, pair) -> bool:
    """transformers, kept from the rows that only pad the head, stops where our sampler stops: at the end token."""
    padding = list(range(pair.vocab_size, model.config.vocab_size)) or None
    prompts = Prompts(ROWS.ids[:4], range(4))
    greedy = skd.interleave(
        pair, prompts, gate=skd.AcceptAll(), student_warp=skd.Warp(0.0), max_new_tokens=12, evidence=False
    )
    for prompt, ours in zip(prompts.ids, greedy.response_ids, strict=True):
        given = torch.tensor([list(prompt)])
        theirs = model.generate(given, do_sample=False, max_new_tokens=12, suppress_tokens=padding)[0, len(prompt) :]
        if theirs.tolist() != ours.tolist():
            return False
    return EOS_ID in model.generation_config.to_dict()["eos_token_id"]
