from pathlib import Path

import pytest

import skd
from skd.engines.transport import Limits
from tests.engines.stand_in import StandIn, serving
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer

SHORT = Limits(connect=1.0, silence=0.5, total=5.0, tries=3)


@pytest.fixture(scope="session")
def directory(tmp_path_factory) -> Path:
    """A student; its teacher is ``tiny_model("llama", seed=1)``, in a directory and served."""
    room = tmp_path_factory.mktemp("served")
    save_tiny(room / "teacher", "llama", seed=1)
    save_tiny(room / "student", "llama", seed=2, hidden=16)
    return room


@pytest.fixture
def server():
    """A server of the teacher."""
    with serving(StandIn(tiny_model("llama", seed=1), tiny_tokenizer())) as stand_in:
        yield stand_in


@pytest.fixture
def served_pair(server, directory):
    return skd.load_pair(skd.VllmServer(server.url, top=20, limits=SHORT), directory / "student", device="cpu")
