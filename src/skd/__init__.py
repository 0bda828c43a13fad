"""Speculative Knowledge Distillation: distil large language models into small ones by interleaved sampling."""
