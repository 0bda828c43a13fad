"""Tokenizers with the special tokens of well-known families, templates of the same shape, and what rows become.

A character's id is its code point, so that ids can be made by hand; special tokens follow from 128 on. What is learned
from stands in «» in the expected texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

__all__ = ["FAMILIES", "Family", "expected"]

_CHARACTERS = ["\n", *map(chr, range(32, 127))]


@dataclass(frozen=True)
class Family:
    """A family's tokenizer and template, and the hand-made results for the rows of the test."""

    specials: tuple[str, ...]
    """Special tokens, with ids from 128 on; the one named ``eos`` among them."""
    eos: str
    template: str | None
    single: str
    """user: hi, assistant: yo."""
    last: str
    """system (where there is one): be brief, user: hi, assistant: yo, user: more, assistant: no; the last turn."""
    every: str | None
    """The same, all assistant turns; None where the family refuses."""
    bos: str | None = None
    system: bool = True
    spaced: str = " hi "
    """What the template makes of the prompt ``" hi "``."""
    metaspace: bool = False
    """Spaces are ▁, as SentencePiece has it, and a text at the very start gets one in front."""
    merged: tuple[str, ...] = ()
    """Pairs of characters that are one token, with ids behind the special tokens."""
    swallow: bool = False
    """Special tokens take the white space behind them (Phi-3's ``rstrip``)."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        spelt = {"▁" if self.metaspace and c == " " else c: ord(c) for c in _CHARACTERS}
        if not self.metaspace:
            spelt = {{" ": "Ġ", "\n": "Ċ"}.get(c, c): i for c, i in spelt.items()}
        merges = [tuple(spelling for c in pair for spelling, i in spelt.items() if i == ord(c)) for pair in self.merged]
        vocab = spelt | {special: 128 + i for i, special in enumerate(self.specials)}
        vocab |= {"".join(merge): 128 + len(self.specials) + i for i, merge in enumerate(merges)}
        backend = Tokenizer(models.BPE(vocab, merges))  # type: ignore[arg-type]
        backend.pre_tokenizer = (
            pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            if self.metaspace
            else pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        )
        backend.decoder = decoders.Metaspace() if self.metaspace else decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(text, rstrip=self.swallow, special=True) for text in self.specials])
        made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=self.bos, eos_token=self.eos)
        made.chat_template = self.template
        return made

    @property
    def eos_id(self) -> int:
        return 128 + self.specials.index(self.eos)


def expected(family: Family, text: str) -> tuple[list[int], list[int], list[bool]]:
    """The ids before the first «, those behind it, and for each of the latter whether it stands in «»."""
    tokens = {special: 128 + i for i, special in enumerate((*family.specials, *family.merged))}
    behind = r"\s*" if family.swallow else ""
    names = "|".join(f"{re.escape(token)}{behind}" for token in sorted(tokens, key=len, reverse=True))
    ids: list[int] = []
    marks: list[int] = []
    for piece in re.findall(f"{names}|.", text, re.DOTALL):
        if piece in "«»":
            marks.append(len(ids))
        else:
            ids.append(tokens.get(piece.strip() if family.swallow else piece) or ord(piece))
    prompt = marks[0]
    trained = {i for start, end in zip(marks[::2], marks[1::2], strict=True) for i in range(start, end)}
    assert marks[-1] == len(ids), "nothing stands behind the last trained turn"
    return ids[:prompt], ids[prompt:], [i in trained for i in range(prompt, len(ids))]


_ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
)

LLAMA2 = Family(
    specials=("<s>", "</s>"),
    bos="<s>",
    eos="</s>",
    metaspace=True,
    spaced="hi",
    template=(
        "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + "
        "'\n<</SYS>>\n\n' %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
        "{% for message in messages %}" + _ALTERNATE + "{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    single="<s>[INST] hi [/INST]« yo </s>»",
    last=("<s>[INST] <<SYS>>\nbe brief\n<</SYS>>\n\nhi [/INST] yo </s><s>[INST] more [/INST]« no </s>»"),
    every=("<s>[INST] <<SYS>>\nbe brief\n<</SYS>>\n\nhi [/INST]« yo </s>»<s>[INST] more [/INST]« no </s>»"),
)

LLAMA3 = Family(
    specials=("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
    merged=("\n\n",),
    spaced="hi",
    template=(
        "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + "
        "'<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    single=(
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«yo<|eot_id|>»"
    ),
    last=(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nyo<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nmore<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«no<|eot_id|>»"
    ),
    every=(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«yo<|eot_id|>»"
        "<|start_header_id|>user<|end_header_id|>\n\nmore<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«no<|eot_id|>»"
    ),
)

GEMMA = Family(
    specials=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    bos="<bos>",
    eos="<eos>",
    metaspace=True,
    system=False,
    spaced="hi",
    template=(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for message in messages %}" + _ALTERNATE + "{% set role = 'model' if message['role'] == "
        "'assistant' else message['role'] %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + "
        "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    single="<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n«yo<end_of_turn>»",
    last=(
        "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nyo<end_of_turn>\n"
        "<start_of_turn>user\nmore<end_of_turn>\n<start_of_turn>model\n«no<end_of_turn>»"
    ),
    every=(
        "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n«yo<end_of_turn>»\n"
        "<start_of_turn>user\nmore<end_of_turn>\n<start_of_turn>model\n«no<end_of_turn>»"
    ),
)

QWEN2 = Family(
    specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    eos="<|im_end|>",
    merged=("\n\n",),
    template=(
        "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    single=(
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n«yo<|im_end|>»"
    ),
    last=(
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n«no<|im_end|>»"
    ),
    every=(
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n«yo<|im_end|>»\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n«no<|im_end|>»"
    ),
)

# Only the turn behind the last question shows its thoughts; one without thoughts shows empty ones.
QWEN3 = Family(
    specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    eos="<|im_end|>",
    merged=("\n\n",),
    template=(
        "{% set ns = namespace(last=0) %}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for message in messages %}"
        "{% set content = message['content'] %}{% set thought = '' %}"
        "{% if message['role'] == 'assistant' and '</think>' in content %}"
        "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
        "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' and loop.index0 > ns.last %}"
        "{{ '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}{% else %}{{ content }}"
        "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    single="<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nyo<|im_end|>»",
    last=(
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nno<|im_end|>»"
    ),
    every=(
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n«yo<|im_end|>»\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nno<|im_end|>»"
    ),
)

PHI3 = Family(
    specials=("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    bos="<s>",
    eos="<|endoftext|>",
    metaspace=True,
    swallow=True,
    spaced="hi ",
    template=(
        "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    ),
    single="<|user|>\nhi<|end|>\n<|assistant|>\n«yo<|end|>»",
    last=(
        "<|system|>\nbe brief<|end|>\n<|user|>\nhi<|end|>\n<|assistant|>\nyo<|end|>\n"
        "<|user|>\nmore<|end|>\n<|assistant|>\n«no<|end|>»"
    ),
    every=(
        "<|system|>\nbe brief<|end|>\n<|user|>\nhi<|end|>\n<|assistant|>\n«yo<|end|>\n»"
        "<|user|>\nmore<|end|>\n<|assistant|>\n«no<|end|>»"
    ),
)

MISTRAL = Family(
    specials=("<s>", "</s>", "[INST]", "[/INST]"),
    bos="<s>",
    eos="</s>",
    metaspace=True,
    system=False,
    template=(
        "{{ bos_token }}{% for message in messages %}" + _ALTERNATE + "{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + '[/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}"
        "{% endif %}{% endfor %}"
    ),
    single="<s>[INST] hi[/INST]« yo</s>»",
    last="<s>[INST] hi[/INST] yo</s>[INST] more[/INST]« no</s>»",
    every="<s>[INST] hi[/INST]« yo</s>»[INST] more[/INST]« no</s>»",
)

# As DeepSeek-R1: the prompt opens a thought, which a finished turn does not show.
R1 = Family(
    specials=("<bos>", "<eos>", "<User>", "<Assistant>"),
    bos="<bos>",
    eos="<eos>",
    template=(
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}"
        "{% elif message['role'] == 'user' %}{{ '<User>' + message['content'] }}{% else %}"
        "{{ '<Assistant>' + message['content'].split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<Assistant><think>\n' }}{% endif %}"
    ),
    single="<bos><User>hi<Assistant><think>\n«yo<eos>»",
    last="<bos>be brief<User>hi<Assistant>yo<eos><User>more<Assistant><think>\n«no<eos>»",
    every=None,
)

GPT2 = Family(
    specials=("<|endoftext|>",),
    eos="<|endoftext|>",
    template=None,
    single="hi«yo<|endoftext|>»",
    last="",
    every=None,
)

FAMILIES: dict[str, Family] = {
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "phi3": PHI3,
    "mistral": MISTRAL,
    "r1": R1,
    "gpt2": GPT2,
}
