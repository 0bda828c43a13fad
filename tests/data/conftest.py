from __future__ import annotations

import pytest
from hypothesis import settings

# A loaded machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def trusted_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started to see whether a template ends."""
    monkeypatch.setattr("skd.data.chat.require_tame", lambda tokenizer, conversations: None)
