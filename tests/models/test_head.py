"""Each family's head, applied to its last hidden state, gives the model's own logits."""

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
)

from skd.errors import ModelError
from skd.models.head import body, check_head, head_of
from tests.tiny import FAMILIES, tiny_model

SMALL = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def model_of(name: str) -> PreTrainedModel:
    if name in FAMILIES:
        return tiny_model(name, seed=3, vocab_size=40, softcap=5.0 if name == "gemma2" else None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made: PreTrainedModel = {
            "cohere": lambda: CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25)),
            "granite": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=8.0)),
            "phi": lambda: PhiForCausalLM(PhiConfig(**SMALL)),
        }[name]()
        for parameter in made.parameters():
            parameter.data.normal_(0.0, 0.5)
    return made.eval()


def own_and_ours(model, vocab_size):
    ids_BT = torch.arange(2, 14).view(2, 6)
    own = model(input_ids=ids_BT, use_cache=False).logits[..., :vocab_size]
    return own, head_of(model, vocab_size).logits(body(model)(input_ids=ids_BT, use_cache=False).last_hidden_state)


@pytest.mark.parametrize("name", [*FAMILIES, "cohere", "granite", "phi"])
@torch.no_grad()
def test_head_gives_the_models_own_logits(name):
    model = model_of(name)
    own, ours = own_and_ours(model, 37)
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-5)
    check_head(model, name, 37)


def test_those_families_really_scale_cap_or_shift_their_logits():
    assert head_of(model_of("cohere"), 40).scale == 0.25
    assert head_of(model_of("granite"), 40).scale == 1 / 8
    assert head_of(model_of("gemma2"), 40).softcap == 10.0
    bias = head_of(model_of("phi"), 37).bias_V
    assert bias is not None
    assert bias.shape == (37,)
    assert bias.abs().max() > 0.1


def test_a_head_that_scales_in_an_unknown_way_is_refused():
    model = model_of("cohere")
    model.config.logit_scale = 0.5
    with pytest.raises(ModelError, match=r"\[SKD-M20\] student: the logits of CohereForCausalLM are not its head"):
        check_head(model, "student", 40)
    model = model_of("llama")
    model.register_forward_hook(lambda module, args, out: setattr(out, "logits", out.logits * 2))
    with pytest.raises(ModelError, match="SKD-M20"):
        check_head(model, "teacher", 40)


def test_a_gradient_reaches_the_tied_embedding_and_the_bias_through_the_head():
    model = model_of("phi")
    head = head_of(model, 37)
    head.logits(torch.ones(2, 32)).sum().backward()
    for grad in (model.lm_head.weight.grad, model.lm_head.bias.grad):
        assert bool((grad[:37] != 0).all())
        assert not bool(grad[37:].any())
