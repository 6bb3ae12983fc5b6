"""Compare two voices with an exported model: neither PyTorch nor this toolkit is needed.

    pip install numpy soundfile onnxruntime
    python tools/onnx_example.py MODEL.onnx FIRST.wav SECOND.wav

MODEL.onnx is what `wespeaker-lap export-onnx … --part whole` wrote. Printed is the cosine of the
embeddings, the training mean subtracted: the score that the operating points of the model's
card are about.
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile


def embed(session: onnxruntime.InferenceSession, path: str) -> np.ndarray:
    """The embedding (E,) of a recording, without the training mean."""
    facts = session.get_modelmeta().custom_metadata_map
    wav, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (S, channels)
    if rate != int(facts["sample_rate"]):
        sys.exit(f"{path}: {rate} Hz, the model wants {facts['sample_rate']} Hz; resample it")
    if not int(facts["min_samples"]) <= len(wav) <= float(facts["max_seconds"]) * rate:
        sys.exit(f"{path}: {len(wav) / rate:.2f} s is too short or too long for the model")
    embedding = session.run(["embeddings"], {"wav": wav.mean(axis=1)[None]})[0][0]
    return embedding - np.array(json.loads(facts.get("mean", "0")))


if __name__ == "__main__":
    model, *recordings = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    first, second = (embed(session, path) for path in recordings)
    print(f"{first @ second / np.linalg.norm(first) / np.linalg.norm(second):.4f}")
