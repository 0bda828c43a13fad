"""What holds of the stand-in in tests/engines must hold of vLLM itself."""

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import skd
from skd.engines.transport import Limits
from skd.errors import RemoteError
from skd.objectives import HiddenStates, Objective, ResponseTokens, TopLogProbs, chunked_loss, top_evidence
from skd.sampling.warp import CutWarp
from skd.types import Prompts
from tests.train.conftest import ROWS
from tests.vllm.measure import own_cpu_seconds, processes

TOP = 20
PROMPTS = Prompts(ids=[[2 + i % 50, 3 + i % 7, 4 + i % 5][: 1 + i % 3] for i in range(96)], sample_ids=list(range(96)))


def sampled(pair, gate=None, **keys):
    warp = skd.Warp(0.7) if pair.server is not None else CutWarp(0.7, 1.0, TOP)
    gate = gate or skd.TopK(8)
    return skd.interleave(
        pair, PROMPTS, gate=gate, teacher_warp=warp, max_new_tokens=24, seed=5, slots=32, block=2, **keys
    )


def timed(pair, figures, name, others=None):
    """A rollout; its seconds, and the CPU seconds of this process, of the server that speaks HTTP (``others``) and of
    the engine behind it, go into the figures."""
    started, ours, theirs = time.perf_counter(), own_cpu_seconds(), processes(others) if others else {}
    rollout = sampled(pair)
    figures[f"{name}_seconds"] = round(time.perf_counter() - started, 3)
    figures[f"{name}_cpu_seconds_here"] = round(own_cpu_seconds() - ours, 2)
    if others:
        used = {number: seconds - theirs.get(number, 0.0) for number, seconds in processes(others).items()}
        figures[f"{name}_cpu_seconds_of_http"] = round(used.pop(others), 2)
        figures[f"{name}_cpu_seconds_of_engine"] = round(sum(used.values()), 2)
    return rollout


def test_a_thousand_blocks_and_their_losses_are_those_of_the_local_teacher(served_pair, local_pair, server, figures):
    before = dict(served_pair.engine.usage)
    local = timed(local_pair, figures, "local")
    served = timed(served_pair, figures, "served", server.number)
    used = {name: count - before[name] for name, count in served_pair.engine.usage.items()}
    blocks = local.stats.drafted // 2
    differing = sum(
        a.tolist() != b.tolist() or c.tolist() != d.tolist()
        for a, b, c, d in zip(local.response_ids, served.response_ids, local.authors, served.authors, strict=True)
    )
    figures |= {"blocks": blocks, "responses": len(local), "responses_differing": differing, **used}
    assert blocks >= 1000
    # A near-tie may fall the other way; it changes all that follows in its response, and nothing else.
    assert differing <= 1
    figures["largest_loss_difference"] = _loss_difference(local_pair, served_pair)
    assert figures["largest_loss_difference"] < 1e-3


def _loss_difference(local_pair, served_pair):
    rollout = sampled(local_pair)
    ids_N = torch.cat(rollout.response_ids)
    tokens = ResponseTokens(ids_N, torch.cat(rollout.authors), torch.zeros_like(ids_N))
    here = top_evidence(HiddenStates(torch.cat(rollout.evidence), local_pair.teacher_head()), ids_N, TOP)
    there = served_pair.engine.score(rollout.prompt_ids, rollout.response_ids)
    columns = ("ids_LK", "logp_LB", "written_L")
    views = [
        TopLogProbs(here.ids_LK, here.logp_LB, here.written_L),
        TopLogProbs(*(torch.cat([getattr(part, name) for part in there]) for name in columns)),
    ]
    student_ND = torch.randn(len(ids_N), 16, generator=torch.Generator().manual_seed(0))
    head, weights_N = local_pair.student_head(), torch.ones(len(ids_N))
    losses = [
        chunked_loss(student_ND, head, tokens, weights_N, Objective(skd.ForwardKL()), teacher=view).token_loss_N
        for view in views
    ]
    return float((losses[0] - losses[1]).abs().max())


def test_supervised_and_on_policy_need_one_request_per_response(served_pair, figures):
    before = served_pair.engine.usage["teacher_requests"]
    rollout = sampled(served_pair, skd.AcceptAll())
    assert served_pair.engine.usage["teacher_requests"] - before == len(rollout)
    assert served_pair.engine.usage["teacher_rescored"] == 0
    assert [len(part) for part in rollout.evidence] == [len(ids) for ids in rollout.response_ids]


def test_a_killed_server_costs_nothing(server, directory, tmp_path, figures):
    def train(output, callbacks=()):
        limits = Limits(connect=2.0, silence=20.0, total=60.0, tries=3)
        pair = skd.load_pair(skd.VllmServer(server.url, top=64, limits=limits), directory / "student", device="cpu")
        config = {
            "teacher": {"engine": "vllm", "url": server.url},
            "student": str(directory / "student"),
            "data": {"train": "rows.json"},
            "sampling": {"max_new_tokens": 5, "student": {"temperature": 1.0, "top_p": 1.0}},
            "train": {"max_steps": 6, "batch_size": 4, "lr": 0.01, "eps": 0.01, "trackers": [], "validate_every": None},
            "output": str(tmp_path / output),
        }
        keys = {"prompts": ROWS, "display": False, "callbacks": callbacks}
        return skd.train(config, pair=pair, **keys)

    def kill(row):
        if row["step"] == 3:
            server.kill()

    whole = train("whole").run_dir
    with pytest.raises(RemoteError, match="SKD-R03"):
        train("killed", [kill])
    checkpoints = [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()]
    assert "step-3" in checkpoints
    server.start()
    killed = train("killed").run_dir
    weights, expected = (
        load_file(Path(run) / "checkpoints" / "step-6" / "student.safetensors") for run in (killed, whole)
    )
    figures["weight_difference_after_kill"] = max(float((weights[n] - expected[n]).abs().max()) for n in expected)
    # vLLM promises no equal bits: other batches of requests round otherwise.
    assert figures["weight_difference_after_kill"] < 1e-3
    assert (killed / "trained.jsonl").read_bytes() == (whole / "trained.jsonl").read_bytes()
