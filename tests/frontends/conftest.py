"""Small, randomly initialised models of transformers with the real architectures' flags."""

from functools import cache

import pytest
import torch

BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (24,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


@cache
def make_model(kind, style):
    transformers = pytest.importorskip("transformers")
    extra = {"num_buckets": 32, "max_bucket_distance": 40} if kind == "WavLM" else {}
    flags = BASE if style == "base" else LARGE
    config = getattr(transformers, f"{kind}Config")(**SMALL, **flags, **extra)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():  # fresh norms and biases are 1 and 0, which hides a mixed-up one
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def hf_model():
    """Factory: (kind, style) -> a model of transformers, the same object for the same names."""
    return make_model
