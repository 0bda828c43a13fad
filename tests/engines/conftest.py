from pathlib import Path

import pytest

import skd
from skd.engines.transport import Limits
from tests.engines.stand_in import StandIn, serving
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer

PATIENT = Limits(connect=10.0, silence=60.0, total=120.0, tries=3)
"""A busy machine must not look like a silent server: each try that is given up costs the server one more answer."""


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
    return skd.load_pair(skd.VllmServer(server.url, top=20, limits=PATIENT), directory / "student", device="cpu")
