"""How much each encoder layer weighs in a trained model, where its weights alone tell."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from scipy.special import softmax

WEIGHTS = "models/avg_model.safetensors"
STREAMS = {"net.layer_pool.": "layers", "net.layer_pool.keys.": "layers for keys",
           "net.layer_pool.values.": "layers for values"}


def read_layer_weights(exp_dir: str | Path) -> dict[str, np.ndarray]:
    """Read the weights of a weighted sum over layers.

    LAP and UniPool score the layers of every frame anew, so there is nothing to read of them.

    Args:
        exp_dir: of the training.

    Returns:
        What is pooled (one thing, or keys and values) -> weights (L,), which sum to 1; nothing for
        another layer pooling or before stage 4.

    Raises:
        ValueError: weights that cannot be read; names the file.
    """
    path = Path(exp_dir) / WEIGHTS
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="np") as tensors:
            names = set(tensors.keys())
            return {stream: softmax(tensors.get_tensor(f"{prefix}layer_logits"))
                    for prefix, stream in STREAMS.items() if f"{prefix}layer_logits" in names}
    except SafetensorError as error:
        raise ValueError(f"{path}: not readable as weights ({error}); run stage 4 again") from error
