"""Configuration and facts of the data to objects."""

import inspect
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wespeaker_lap import build
from wespeaker_lap.config import load_config
from wespeaker_lap.config import model as config_model
from wespeaker_lap.data.copies import Copy
from wespeaker_lap.losses.margin import AAMSoftmax
from wespeaker_lap.models.layer_pool import LAP, WeightedSum
from wespeaker_lap.models.span_out import SpanOut
from wespeaker_lap.models.spec_augment import SpecAugment
from wespeaker_lap.models.time_pool import ASTP, StatsPool


@pytest.mark.parametrize(("name", "layer_pool"), [("lap", LAP), ("weighted_sum", WeightedSum)])
@pytest.mark.parametrize(("time_name", "time_pool"), [("astp", ASTP), ("stats", StatsPool)])
def test_every_name_builds(name, layer_pool, time_name, time_pool):
    config = load_config(overrides=[f"model.layer_pool.name={name}", "model.embed_dim=10",
                                    f"model.time_pool.name={time_name}"])
    net = build.build_net(config.model, 3, 32).eval()
    assert type(net.layer_pool) is layer_pool and type(net.time_pool) is time_pool
    assert net(torch.randn(2, 6, 3, 32)).shape == (2, 10)


@pytest.mark.parametrize(("table", "field"), [
    (build.LAYER_POOLS, "layer_pool"), (build.FRAME_NETS, "frame_net"),
    (build.TIME_POOLS, "time_pool")])
def test_the_tables_name_what_the_configuration_offers(table, field):
    for name in table:
        section = getattr(load_config(overrides=[f"model.{field}.name={name}"]).model, field)
        assert section.name == name
    with pytest.raises(ValueError) as caught:
        load_config(overrides=[f"model.{field}.name=nothing"])
    offered = str(caught.value).partition("expected tags:")[2]
    assert set(re.findall(r"'(\w+)'", offered)) == set(table)


@pytest.mark.parametrize("table", [build.LAYER_POOLS, build.FRAME_NETS, build.TIME_POOLS])
def test_options_and_arguments_agree(table):
    """Every option of the configuration is an argument with the same default."""
    sections = {m.model_fields["name"].default: m for m in vars(config_model).values()
                if isinstance(m, type) and "name" in getattr(m, "model_fields", {})}
    for name, kind in table.items():
        options = {key: field.default for key, field in sections[name].model_fields.items()
                   if key != "name"}
        arguments = inspect.signature(kind).parameters
        defaults = {key: p.default for key, p in arguments.items() if p.default is not p.empty}
        assert options == defaults, name


FRAME_SYSTEMS = {
    "xvector": "{name: xvector, channels: 16, out_dim: 24}",
    "ecapa": "{name: ecapa, channels: 16, out_dim: 24}",
    "resnet34": "{name: resnet34, channels: 2}",
    "campplus": "{name: campplus, growth: 4, bottleneck: 8, init_channels: 8}",
    "mfa_conformer": "{name: mfa_conformer, num_blocks: 2, block_dim: 8, ffn_dim: 16}",
}


@pytest.mark.parametrize("name", build.FRAME_NETS)
def test_every_frame_network_stands_behind_a_layer_pooling(name):
    config = load_config(overrides=["model.layer_pool={name: single, layer: 0}",
                                    f"model.frame_net={FRAME_SYSTEMS[name]}",
                                    "model.hidden_dim=12", "model.embed_dim=10"])
    net = build.build_net(config.model, 1, 80).eval()
    assert type(net.frame_net) is build.FRAME_NETS[name]
    assert net.hidden[0].out_features == 12
    assert net(torch.randn(2, 40, 1, 80)).shape == (2, 10)


def test_mhfa_pools_the_layers_twice():
    config = load_config(overrides=["model.time_pool={name: mhfa, num_heads: 4, compression: 8}",
                                    "model.layer_pool={name: lap, out_dim: 16, num_heads: 2}"])
    net = build.build_net(config.model, 3, 8)
    assert isinstance(net.layer_pool.keys, LAP) and isinstance(net.layer_pool.values, LAP)
    assert net.layer_pool.keys is not net.layer_pool.values
    with pytest.raises(ValueError, match="no frame_net fits between"):
        load_config(overrides=["model.time_pool.name=mhfa", "model.frame_net.name=ecapa"])


def test_span_out_arrives():
    config = load_config(overrides=["model.span_out={utt_prob: 1.0, start_prob: 0.2, span: 2}"])
    (cut,) = build.build_net(config.model, 3, 32).augments
    assert (cut.utt_prob, cut.start_prob, cut.span) == (1.0, 0.2, 2)


def test_spec_augment_arrives_behind_span_out():
    config = load_config(overrides=["model.spec_augment={time_masks: 2, freq_bands: 5}",
                                    "model.span_out={}"])
    cut, mask = build.build_net(config.model, 1, 32).augments
    assert isinstance(cut, SpanOut) and isinstance(mask, SpecAugment)
    assert (mask.time_masks, mask.time_frames, mask.freq_masks, mask.freq_bands) == (2, 10, 1, 5)
    assert len(build.build_net(load_config().model, 13, 768).augments) == 0


def test_shares_of_augmentation_are_probabilities():
    data = load_config(overrides=["data={source: wave, speeds: [1.1, 1.0, 0.9]}",
                                  "data.augment={prob: 0.6, noise: 2, babble: 0}"]).data
    shares = build.build_shares(data)
    assert {copy.name: share for copy, share in shares.items()} == pytest.approx(
        {"clean": 0.4, "noise": 0.4, "reverb": 0.2})
    assert [copy.name for copy in build.build_speeds(data)] == ["speed1.1", "speed0.9"]
    assert build.build_shares(load_config().data).keys() == {Copy("clean")}
    always = load_config(overrides=["data={source: wave, augment: {prob: 1, reverb: 0}}"]).data
    assert {copy.name for copy in build.build_shares(always)} == {"noise", "babble"}


# Published sizes of whole systems without the classifier; 80 filter banks, see the networks' files.
@pytest.mark.parametrize(("overrides", "num_params"), [
    (["frame_net.name=xvector", "time_pool.name=stats", "hidden_dim=512", "embed_dim=512"], 4.61e6),
    (["frame_net.name=ecapa", "time_pool.reduction=0.08333333333333333"], 6.19e6),
    (["frame_net={name: ecapa, channels: 1024}", "time_pool.reduction=0.08333333333333333"],
     14.65e6),
    (["frame_net.name=resnet34", "time_pool.name=stats", "embed_dim=256"], 6.63e6),
    (["frame_net.name=campplus", "time_pool.name=stats", "embed_dim=512"], 7.18e6),
])
def test_the_size_of_published_systems(overrides, num_params):
    config = load_config(overrides=["model.layer_pool={name: single, layer: 0}",
                                    *(f"model.{item}" for item in overrides)])
    found = build.count_params(build.build_net(config.model, 1, 80))
    assert found == pytest.approx(num_params, rel=0.02)


def test_the_size_of_unipool():
    """2.87 million for 12 layers of 768 behind layer 0, one block (arXiv 2409.07770)."""
    config = load_config(overrides=["model.layer_pool.name=unipool"])
    found = build.count_params(build.build_net(config.model, 13, 768))
    assert found == pytest.approx(2.87e6, rel=0.005)


def test_options_arrive():
    config = load_config(overrides=[
        "model.layer_pool.out_dim=24", "model.layer_pool.num_heads=4", "model.layer_pool.dropout=0",
        "loss.scale=20", "loss.margin=0.25", "loss.num_subcenters=2", "loss.top_k=3",
        "loss.top_k_penalty=0.1"])
    net = build.build_net(config.model, 3, 8)
    assert net.layer_pool.out_dim == 24
    assert not [m.p for m in net.layer_pool.modules() if isinstance(m, nn.Dropout) and m.p]
    head = build.build_head(config.loss, 16, 7)
    assert isinstance(head, AAMSoftmax)
    assert (head.scale, head.margin, head.top_k, head.top_k_penalty) == (20, 0.25, 3, 0.1)
    assert head.centers.shape == (7, 2, 16)
    assert head(torch.randn(4, 16), torch.arange(4))[1].shape == (4, 7)


def test_the_frontend_takes_its_options():
    config = load_config(overrides=["frontend.max_seconds=4", "frontend.overlap_seconds=1",
                                    "frontend.last_state=before_norm"])
    frontend = build.build_frontend(config.frontend)
    identity = frontend.identity()
    assert identity["encoder"] == "wavlm_tiny" and identity["last_state"] == "before_norm"
    assert (identity["max_seconds"], identity["overlap_seconds"]) == (4, 1)
    assert not any(p.requires_grad for p in frontend.parameters())


def test_the_filter_banks_take_theirs():
    config = load_config(overrides=["frontend={name: fbank, num_mels: 40, mean_norm: false}"])
    frontend = build.build_frontend(config.frontend)
    identity = frontend.identity()
    assert (identity["encoder"], identity["dim"], identity["mean_norm"]) == ("fbank", 40, False)
    assert frontend(torch.zeros(1, 720))[0].shape == (1, 3, 1, 40)


def test_the_features_section_chooses_layers_and_frames():
    config = load_config(overrides=["features.layer_stride=3", "features.frame_stride=2"])
    frontend = build.build_frontend(config.frontend, config.features)
    assert (frontend.layers, frontend.frame_shift) == ([0, 3, 6], 640)
    assert frontend(torch.randn(1, 16000))[0].shape == (1, 24, 3, 192)
    config = load_config(overrides=["features.layers=[1, 5]"])
    assert build.build_frontend(config.frontend, config.features).layers == [1, 5]
    plain = build.build_frontend(config.frontend, load_config().features)
    assert type(plain) is type(build.build_frontend(config.frontend))


def test_segments_are_counted_in_stored_frames():
    config = load_config(overrides=["features.segments={num: 2, seconds: 1.5, seed: 9}",
                                    "features.frame_stride=3"]).features
    frontend = SimpleNamespace(sample_rate=16000, frame_shift=960)
    segments = build.build_segments(config, frontend, True)
    assert (segments.num, segments.num_frames, segments.seed) == (2, 25, 9)
    assert build.build_segments(config, frontend, False) is None
    assert build.build_segments(load_config().features, frontend, True) is None


@pytest.mark.parametrize("name", ["Fbank", "fbanks"])
def test_a_misspelt_name_of_the_filter_banks(name):
    config = load_config(overrides=[f"frontend.name={name}"])
    with pytest.raises(ValueError, match=f"unknown encoder '{name}'; did you mean fbank"):
        build.build_frontend(config.frontend)


def test_count_params_counts_what_is_trained():
    module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    module[2].requires_grad_(False)
    assert build.count_params(module) == 3 * 5 + 5 + 2 * 5


@pytest.mark.parametrize(("num_layers", "dim", "num_heads", "num_params"), [
    (25, 1024, 16, 2_312_464), (13, 768, 12, 1_713_780)])
def test_the_size_of_laps_back_end(num_layers, dim, num_heads, num_params):
    config = load_config(overrides=[f"model.layer_pool.num_heads={num_heads}"])
    assert build.count_params(build.build_net(config.model, num_layers, dim)) == num_params
