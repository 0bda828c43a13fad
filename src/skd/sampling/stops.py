"""Stop strings: texts that end a response, wherever token borders lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from skd.sampling.slots import Slots

__all__ = ["StopStrings"]


@dataclass(frozen=True)
class StopStrings:
    """Looks for stop strings in the decoded text of responses, special tokens visible.

    A response ends with the token that completes a stop string, and that token stays in it.
    """

    tokenizer: PreTrainedTokenizerBase
    strings: tuple[str, ...]

    def cut(self, slots: Slots, count_B: Tensor, ended_B: Tensor) -> tuple[Tensor, Tensor]:
        """Shorten the tokens to commit [B] to the end of a stop string, and mark those rows [B] as ended."""
        if not self.strings:
            return count_B, ended_B
        # One transfer for all rows, not one for each.
        table = torch.cat([count_B.unsqueeze(1), ended_B.long().unsqueeze(1), slots.ids_BW], dim=1).tolist()
        counts, ended = [row[0] for row in table], [bool(row[1]) for row in table]
        for slot, request in enumerate(slots.held):
            if request is None:
                continue
            length = slots.lengths[slot]
            found = self.end(table[slot][2 : 2 + length + counts[slot]], length)
            if found is not None:
                counts[slot], ended[slot] = found - length, True
        return count_B.new_tensor(counts), ended_B.new_tensor(ended)

    def end(self, ids: list[int], committed: int = 0) -> int | None:
        """Length of ``ids`` up to the token that completes a stop string; None where none does. The first ``committed``
        are known to complete none."""
        if not self.strings:
            return None
        # A character takes at most four tokens (bytes), so no stop string reaches back further than this.
        start = max(0, committed - 4 * max(map(len, self.strings)) - 4)

        def stops(end: int) -> bool:
            text = self.tokenizer.decode(ids[start:end], skip_special_tokens=False)
            return any(string in text for string in self.strings)

        if not stops(len(ids)):
            return None
        return next(end for end in range(committed + 1, len(ids) + 1) if stops(end))
