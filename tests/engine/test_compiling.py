"""train.compile: what is compiled, and that it computes the same."""

import logging
from functools import partialmethod

import pytest
import safetensors.torch
import torch
from torch import nn
from trainings import NO_DROPOUT, weights_of

ECAPA = ("model.frame_net={name: ecapa, channels: 16, out_dim: 24, squeeze_dim: 4}",
         "train.epochs=1", *NO_DROPOUT)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The graphs are found as ever, and run without being made into programs; lists whose."""
    compiled, compile_module = [], nn.Module.compile

    def note(module: nn.Module, backend: str) -> None:
        compiled.append(module)
        compile_module(module, backend=backend)

    monkeypatch.setattr(nn.Module, "compile", partialmethod(note, backend="eager"))
    yield compiled
    torch._dynamo.reset()


def test_the_frame_network_is_compiled(corpus, tmp_path, quick, caplog):
    caplog.set_level(logging.INFO)
    for name, compiles in (("plain", "false"), ("compiled", "true")):
        corpus.train(tmp_path / name, *ECAPA, f"train.compile={compiles}")
        assert bool(quick) == (name == "compiled")
    assert [type(module).__name__ for module in quick] == ["EcapaTdnn"]
    told = "compiled in the first steps: the frame network"
    assert [told in (tmp_path / name / "train.log").read_text() for name in ("plain", "compiled")
            ] == [False, True]
    plain, compiled = (safetensors.torch.load(weights_of(tmp_path / name, 1))
                       for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_the_blocks_of_an_encoder_are_compiled(wave_corpus, tmp_path, quick):
    wave_corpus.train(tmp_path / "exp", "frontend={name: wavlm_tiny}", "train.crop_seconds=0.2",
                      "train.encoder={lr: 0.001}", "model.layer_pool={name: weighted_sum}",
                      "train.epochs=1", "train.compile=true")
    assert len(quick) == 6 and len({type(module) for module in quick}) == 1
