"""Opening stored responses: every byte is the one written, and the evidence stays on the disk."""

import os
import shutil

import pytest

import skd.responses.shards
from skd.config import config_of
from skd.errors import ConfigError, DataError, ModelError
from skd.responses import open_responses
from tests.responses.conftest import content, from_files, open_run, stored
from tests.tiny import save_tiny


def test_a_flipped_bit_in_any_file_is_refused_by_name(write):
    directory = write(3)
    for name, data in content(directory).items():
        path = directory / name
        for place in (0, len(data) // 3, len(data) // 2, len(data) - 2):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(DataError, match=rf"SKD-D02.*{name}"):
                open_responses(directory)
        path.write_bytes(data)
    assert len(open_responses(directory).prompts) == 10


def test_missing_cut_and_unfinished_files_are_refused(write, tmp_path):
    directory = write(3)
    shard = directory / "shard-00002.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(DataError, match=rf"shard-00002.*it has {len(data) - 1} bytes, {len(data)} were written"):
        open_responses(directory)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-00002.*it is missing"):
        open_responses(directory)
    (directory / "index.json").rename(directory / "unfinished.json")
    with pytest.raises(DataError, match=r"SKD-D01.*not all written yet; run the same skd generate again"):
        open_responses(directory)
    with pytest.raises(DataError, match=r"SKD-D01.*there is no index\.json"):
        open_responses(tmp_path / "nowhere")


def test_an_index_whose_hash_is_right_cannot_lead_out_of_the_directory_or_promise_what_is_not_there(write):
    from dataclasses import replace

    directory = write(3)
    index = open_responses(directory).index
    path = directory / "index.json"
    path.write_text(index.text().replace("shard-00000", "../00000"))
    with pytest.raises(DataError, match="SKD-D02"):
        open_responses(directory)
    path.write_text(replace(index, top_k=4).text())
    with pytest.raises(DataError, match=r"top_ids is not of type I32 and shape \[\d+, 4\]"):
        open_responses(directory)


def test_evidence_is_read_a_response_at_a_time_and_only_when_it_is_looked_at(config, write, monkeypatch):
    directory = write(64)
    read = []

    class Counting:
        def __init__(self, path, framework):
            self.file = real(path, framework=framework)

        def __enter__(self):
            return self.file.__enter__()

        def __exit__(self, *error):
            return self.file.__exit__(*error)

    real = skd.responses.shards.safe_open

    def counted(path, framework):
        read.append(path)
        return Counting(path, framework)

    run = open_run(stored(config, directory, method="supervised_kd"))
    monkeypatch.setattr(skd.responses.shards, "safe_open", counted)
    chosen = run.prompts.select([7, 2]).select([1])
    assert not read
    evidence = chosen.reference_evidence[0]
    assert read == [directory / "shard-00000.safetensors"]
    length = len(chosen.references[0])
    assert evidence.ids_LK.shape == (length, 64)
    assert evidence.logp_LB.untyped_storage().nbytes() <= length * 65 * 4
    from skd.train.step import train_step

    read.clear()
    train_step(run, 0)
    assert len(read) == 4


@pytest.mark.parametrize("harm", ["remove", "edit", "touch"])
def test_a_file_that_changes_during_the_run_stops_it(config, write, harm):
    directory = write(3)
    evidence = open_run(stored(config, directory, method="supervised_kd")).prompts.reference_evidence
    shard = directory / "shard-00000.safetensors"
    assert len(evidence[0].ids_LK)
    if harm == "remove":
        shard.unlink()
    elif harm == "edit":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        os.utime(shard, (1, 1))
    with pytest.raises(DataError, match=r"SKD-D14.*shard-00000.safetensors: was changed or removed while the run"):
        evidence[0]


def test_what_the_files_lack_is_said_before_weights_are_loaded(config, write, tmp_path):
    plain, small = write(None, "plain"), write(3, "small")
    shutil.rmtree(tmp_path / "nothing", ignore_errors=True)
    absent = {"student": str(tmp_path / "nothing")}
    with pytest.raises(ConfigError, match=r"plain: holds responses without evidence.*--evidence top_k=64"):
        open_run(stored(config, plain, method="supervised_kd", **absent))
    weights = {"weights": {"kind": "teacher_top_k", "k": 5}, "temperature": 2.0}
    with pytest.raises(ConfigError) as caught:
        open_run(stored(config, small, method="supervised_kd", objective=weights, **absent))
    assert [problem.code for problem in caught.value.problems] == ["SKD-C10", "SKD-T10"]
    assert "3 most probable ids, and objective.weights.k is 5" in str(caught.value)
    run = open_run(stored(config, plain, method="seq_kd"))
    assert not run.objective.needs_teacher


def test_another_vocabulary_is_refused(config, write, tmp_path):
    save_tiny(tmp_path / "other", "llama", seed=2, hidden=16, vocab_size=70)
    with pytest.raises(ModelError, match=r"SKD-M02.*another vocabulary"):
        open_run(stored(config, write(3), method="supervised_kd", student=str(tmp_path / "other")))


def test_the_config_knows_what_needs_a_teacher_all_the_same(config, tmp_path):
    with pytest.raises(ConfigError, match="needs a teacher"):
        config_of({**stored(config, tmp_path), "policy": "student"})
    beside = {"train": from_files(tmp_path), "validation": "rows.json"}
    with pytest.raises(ConfigError, match="needs a teacher"):
        config_of({**stored(config, tmp_path), "data": beside})
    with pytest.raises(ConfigError, match="stored responses alone"):
        config_of({**stored(config, tmp_path), "data": {"train": [from_files(tmp_path), "rows.json"]}})
    assert config_of(stored(config, tmp_path)).teacher is None
