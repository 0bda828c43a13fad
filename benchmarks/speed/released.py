"""What the paper's released code costs: one response at a time, blocks with cropped caches, a second teacher forward.

An assembly of its steps in plain transformers, with the gate as the paper states it, and without the overhead of the
patched ``generate``; so its true cost is a little higher. ``hf_assisted`` shows by how much such a loop and
transformers' own assisted generation differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax
from transformers import DynamicCache, PreTrainedModel

__all__ = ["Released"]


@dataclass
class Released:
    """A pair, and the optimiser of its student."""

    teacher: PreTrainedModel
    student: PreTrainedModel
    optimizer: torch.optim.Optimizer
    length: int
    gamma: int = 5
    k: int = 25
    kept: int = 0
    replaced: int = 0

    def step(self, prompt_ids: list[int]) -> int:
        """One training step on one prompt; returns the tokens of its response."""
        prompt_1P = torch.tensor([prompt_ids])
        ids_1T = self.rollout(prompt_1P)
        student_logits = self.student(ids_1T, use_cache=False).logits
        with torch.no_grad():
            teacher_logits = self.teacher(ids_1T, use_cache=False).logits
        response = slice(prompt_1P.shape[1] - 1, ids_1T.shape[1] - 1)
        student_logp, teacher_logp = (
            log_softmax(logits[0, response].float(), dim=-1) for logits in (student_logits, teacher_logits)
        )
        loss = kl_div(student_logp, teacher_logp, reduction="none", log_target=True).sum(-1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return response.stop - response.start

    @torch.no_grad()
    def rollout(self, ids_1T: Tensor) -> Tensor:
        """The prompt with its response."""
        caches = DynamicCache(), DynamicCache()
        end = ids_1T.shape[1] + self.length
        while ids_1T.shape[1] < end:
            count = min(self.gamma, end - ids_1T.shape[1])
            ids_1T = self._judged(self._drafted(ids_1T, caches[0], count), caches[1], count)
            for cache in caches:
                beyond = cache.get_seq_length() - (ids_1T.shape[1] - 1)
                if beyond > 0:
                    cache.crop(-beyond)
        return ids_1T

    def _drafted(self, ids_1T: Tensor, cache: DynamicCache, count: int) -> Tensor:
        for _ in range(count):
            logits = self.student(ids_1T[:, cache.get_seq_length() :], past_key_values=cache, logits_to_keep=1).logits
            ids_1T = torch.cat([ids_1T, torch.multinomial(logits[:, -1].softmax(-1), 1)], dim=1)
        return ids_1T

    def _judged(self, ids_1T: Tensor, cache: DynamicCache, count: int) -> Tensor:
        fed = ids_1T[:, cache.get_seq_length() :]
        logits_GV = self.teacher(fed, past_key_values=cache, logits_to_keep=count + 1).logits[0, :-1]
        draft_G1 = ids_1T[0, -count:].unsqueeze(1)
        keep_G = (logits_GV.topk(self.k).indices == draft_G1).any(-1)
        kept = int(keep_G.long().cumprod(0).sum())
        self.kept += kept
        if kept == count:
            return ids_1T
        self.replaced += 1
        replacement = torch.multinomial(logits_GV[kept].softmax(-1), 1).unsqueeze(0)
        return torch.cat([ids_1T[:, : ids_1T.shape[1] - count + kept], replacement], dim=1)
