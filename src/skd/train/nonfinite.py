"""A step that is not finite: refused before the update, and written down so that it can be taken again.

    run_dir/nonfinite-step-N.json           loss, gradient norm, the parameters with a bad gradient, the responses;
                                            of other processes than the main one in nonfinite-step-N-rank-R.json
    run_dir/nonfinite-step-N.safetensors    the student's weights before the step

``skd.train.step.redo_step`` takes the step once more from the two.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skd.errors import NumericsError, Problem
from skd.files import write_atomic, write_safetensors
from skd.train.run import Run
from skd.train.tensors import average_tensors, restore_average, student_tensors
from skd.types import Rollout

__all__ = ["refuse_nonfinite", "restored_dump", "write_dump", "write_dump_of"]


def refuse_nonfinite(run: Run, step: int, loss: float | int | None, grad_norm: float, rollout: Rollout) -> None:
    """Raises NumericsError (SKD-T01), with the step written down, unless loss and gradient norm are finite."""
    if loss is not None and math.isfinite(loss) and math.isfinite(grad_norm):
        return
    path = write_dump_of(run, step, loss, grad_norm, rollout)
    raise NumericsError(
        Problem(
            "SKD-T01",
            f"step {step}",
            f"loss {loss} or gradient norm {grad_norm} is not finite; no update was made; the responses are in {path}",
            "start again in another output with a smaller train.lr or train.precision: fp32",
        )
    )


def write_dump_of(run: Run, step: int, loss: float | int | None, grad_norm: float, rollout: Rollout) -> Path:
    """``write_dump`` into the run's directory; returns where it is."""
    path = run.run_dir / f"nonfinite-step-{step}{'' if run.is_main else f'-rank-{run.rank}'}.json"
    # Without a disk there is no dump, but the cause is still this one.
    with run.spread.read_by_main(), suppress(OSError):
        write_dump(run, path, step, loss, grad_norm, rollout)
    return path


def write_dump(run: Run, path: Path, step: int, loss: float | int | None, grad_norm: float, rollout: Rollout) -> None:
    """Write the responses to ``path``; the main process writes the student's weights beside it. Raises OSError."""
    parameters = [name for name, gradient in run.spread.gradients() if not torch.isfinite(gradient).all()]
    found = {"step": step, "loss": str(loss), "grad_norm": str(grad_norm), "parameters": parameters}
    found |= {"loss_scale": run.scaler.state_dict()}
    responses = [_response(rollout, row) for row in range(len(rollout))]
    write_atomic(path, json.dumps({**found, "responses": responses}) + "\n")
    if run.is_main:
        weights = _weights_beside(path, step)
        weights.unlink(missing_ok=True)
        write_safetensors(weights, student_tensors(run.pair.student) | average_tensors(run.pair))


def _weights_beside(path: Path, step: int) -> Path:
    """The file that the dumps of all ranks share."""
    return path.with_name(f"nonfinite-step-{step}.safetensors")


def _response(rollout: Rollout, row: int) -> dict[str, Any]:
    return {
        "sample_id": rollout.sample_ids[row],
        "response_index": rollout.response_index[row],
        "prompt_ids": rollout.prompt_ids[row].tolist(),
        "response_ids": rollout.response_ids[row].tolist(),
        "authors": rollout.authors[row].tolist(),
        "truncated": bool(rollout.truncated[row]),
        "student_logp": None if rollout.student_logp is None else rollout.student_logp[row].tolist(),
        "mask": None if rollout.masks is None else rollout.masks[row].tolist(),
        "route": rollout.route([row]),
        "teacher_prompt_ids": None if (own := rollout.teacher_prompt_ids) is None else own[row].tolist(),
    }


def restored_dump(run: Run, path: Path) -> tuple[int, Rollout]:
    """The step and the responses of a dump, with its weights put into the run's student.

    The teacher's evidence is not in the dump: its weights are known, so it is computed again.
    """
    from safetensors.torch import load_file

    found = json.loads(path.read_text(encoding="utf-8"))
    weights = load_file(_weights_beside(path, int(found["step"])))
    run.spread.reloaded(restore_average(run.pair, weights, path), {}, path)
    if found.get("loss_scale"):
        run.scaler.load_state_dict(found["loss_scale"])
    rows = found["responses"]
    return int(found["step"]), Rollout(
        prompt_ids=_column(rows, "prompt_ids", torch.int64),
        response_ids=_column(rows, "response_ids", torch.int64),
        authors=_column(rows, "authors", torch.uint8),
        truncated=torch.tensor([row["truncated"] for row in rows], dtype=torch.bool),
        sample_ids=[row["sample_id"] for row in rows],
        response_index=[row["response_index"] for row in rows],
        student_logp=_optional(rows, "student_logp", torch.float32),
        masks=_optional(rows, "mask", torch.bool),
        teacher_prompt_ids=_optional(rows, "teacher_prompt_ids", torch.int64),
        routes=[row["route"] for row in rows] if run.pair.routes else None,
        tokenizer=run.pair.tokenizer,
    )


def _column(rows: list[dict[str, Any]], name: str, dtype: torch.dtype) -> list[Tensor]:
    return [torch.tensor(row[name], dtype=dtype) for row in rows]


def _optional(rows: list[dict[str, Any]], name: str, dtype: torch.dtype) -> list[Tensor] | None:
    return _column(rows, name, dtype) if rows and rows[0][name] is not None else None
