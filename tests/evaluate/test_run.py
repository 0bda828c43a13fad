"""A model's score is that of its own greedy responses, and a result says what it rests on."""

import json
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from skd.data.tasks import TASKS
from skd.errors import ConfigError, DataError, ResourceError
from skd.evaluate import engines, run
from skd.evaluate.run import evaluate


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A random Llama over the words of the number task."""
    words = ["<pad>", "</s>", "<unk>", *TASKS["number_words"].words]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=96
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=96,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    directory = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


class Texts(list):
    """Prompts that were not encoded."""

    def select(self, index):
        return Texts(self[i] for i in index)


class Oracle:
    """Stands where a pair and the sampler stand, and answers from a table: what is tested is the judging."""

    def __init__(self, answer):
        self.answer = answer
        self.provenance = {"student": {"path": "oracle\x1b[2J"}}
        self.tokenizer = SimpleNamespace(chat_template=None)

    def encode(self, texts):
        self.numbers = {text: i for i, text in enumerate(texts)}
        return Texts(texts)

    def interleave(self, pair, prompts, **settings):
        self.settings = settings
        references = {row.prompt: row.response for row in TASKS["number_words"].rows("test", 50, 0)}
        texts = [self.answer(self.numbers[prompt], references[prompt]) for prompt in prompts]
        ids = [torch.tensor([1])] * len(texts)
        return SimpleNamespace(
            text=lambda: texts, truncated=torch.zeros(len(texts), dtype=torch.bool), response_ids=ids
        )


@pytest.fixture
def judged(monkeypatch):
    def judge(answer, **options):
        oracle = Oracle(answer)
        monkeypatch.setattr(run, "encoded", lambda _, work, decoding: oracle.encode([row.prompt for row in work.rows]))
        monkeypatch.setattr(engines, "interleave", oracle.interleave)
        return evaluate(oracle, "number_words", **{"size": 20, **options}), oracle

    return judge


def test_right_wrong_and_empty_answers(judged):
    result, oracle = judged(lambda i, reference: [reference, reference + " und", ""][i % 3])
    assert result.correct == tuple(i % 3 == 0 for i in range(20))
    assert (result.score, result.n) == (7 / 20, 20)
    assert result.interval[0] < 7 / 20 < result.interval[1]
    assert oracle.settings["student_warp"].temperature == 0.0


def test_the_line_has_no_control_characters(judged):
    line = judged(lambda i, reference: reference)[0].line()
    assert "number_words   n     20   100.0 %   (95 % interval 83.9 to 100.0)" in line
    assert "oracle\\x1b[2J" in line


def test_items_and_summary_are_written(judged, tmp_path):
    out = tmp_path / "scores" / "start.jsonl"
    result, _ = judged(lambda i, reference: reference if i else "\ud800", out=out)
    items = [json.loads(line) for line in out.read_text().splitlines()]
    assert [item["correct"] for item in items] == list(result.correct) == [False] + [True] * 19
    assert items[3]["response"] == items[3]["reference"]
    summary = json.loads((tmp_path / "scores" / "start.summary.json").read_text())
    assert summary["score"] == result.score
    assert summary["data"]["fingerprint"] == result.provenance["data"]["fingerprint"]
    assert len(list(out.parent.iterdir())) == 2


def test_fingerprint_tells_data_apart(judged):
    def fingerprint(**options):
        return judged(lambda i, reference: "", **options)[0].provenance["data"]["fingerprint"]

    assert fingerprint() == fingerprint()
    assert fingerprint() != fingerprint(size=21)


def test_unknown_names_are_refused_together(model_dir):
    with pytest.raises(ConfigError) as caught:
        evaluate(model_dir, "number_word", split="tests")
    assert [str(problem) for problem in caught.value.problems] == [
        "error[SKD-E19] task: 'number_word' is none of number_words, dialogue, toy_translation, sums, gsm8k, "
        "dialogsum, dialogsum_bare, translation, math, humaneval, mbpp, humaneval_bare, mbpp_bare; write number_words",
        "error[SKD-E19] split: 'tests' is none of train, validation, test; write test",
    ]


def test_a_place_that_cannot_be_written_is_refused_before_the_model_is_opened(tmp_path):
    with pytest.raises(ResourceError, match="SKD-H09"):
        evaluate(tmp_path / "no model", "number_words", size=2, out=tmp_path)


def test_no_items_is_refused(model_dir):
    with pytest.raises(DataError):
        evaluate(model_dir, "number_words", size=0)


def test_a_model_directory_answers_as_its_own_greedy_generation(model_dir):
    result = evaluate(model_dir, "number_words", size=6, max_new_tokens=12, slots=4)
    model, tokenizer = LlamaForCausalLM.from_pretrained(model_dir), PreTrainedTokenizerFast.from_pretrained(model_dir)
    for row, response in zip(TASKS["number_words"].rows("test", 6, 0), result.responses, strict=True):
        prompt = tokenizer(row.prompt, return_tensors="pt").input_ids
        ids = model.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]
        assert response == tokenizer.decode(ids, skip_special_tokens=True)
    assert result.provenance["model"]["path"] == str(model_dir)
    assert result.provenance["versions"]["torch"] == version("torch")
