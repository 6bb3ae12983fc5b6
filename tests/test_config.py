"""The configuration: strict, all complaints at once; every recipe's YAML loads and builds."""

from pathlib import Path

import pydantic
import pytest
import torch
import yaml

from wespeaker_lap.build import build_head, build_net
from wespeaker_lap.config import ALIASES, Config, dump_config, get_value, load_config
from wespeaker_lap.pretrain import load_pretrain_config
from wespeaker_lap.pretrain.config import PretrainConfig
from wespeaker_lap.pretrain.encoder import build_encoder

REPO = Path(__file__).resolve().parents[1]
PRETRAININGS = sorted(REPO.glob("egs/ssl_pretrain/**/*.yaml"))
RECIPES = sorted(set(REPO.glob("egs/**/*.yaml")) - set(PRETRAININGS))


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(REPO)))
def test_every_recipes_configuration_loads_and_builds(path):
    config = load_config(path)
    num_layers, dim = (3, 2 * config.model.layer_pool.num_heads
                       if config.model.layer_pool.name == "lap" else 8)
    net = build_net(config.model, num_layers, dim).eval()
    embeddings = net(torch.randn(2, 5, num_layers, dim))
    assert embeddings.shape == (2, config.model.embed_dim)
    head = build_head(config.loss, config.model.embed_dim, 7)
    loss, logits = head(embeddings, torch.tensor([0, 6]))
    assert loss.isfinite() and logits.shape == (2, 7)
    # What training writes beside the model loads to the same.
    assert Config.model_validate(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize("path", PRETRAININGS, ids=lambda path: str(path.relative_to(REPO)))
def test_every_pretraining_configuration_loads_and_builds(path):
    config = load_pretrain_config(path)
    wavs = torch.randn(2, 1600)
    states, _ = build_encoder(config.encoder, 16000).extract_features(wavs)
    assert [state.shape[-1] for state in states] == config.encoder.num_layers * [config.encoder.dim]
    assert PretrainConfig.model_validate(yaml.safe_load(dump_config(config))) == config
    assert load_pretrain_config(path, ["seed=7"]).seed == 7


def test_there_are_recipes():
    assert RECIPES and PRETRAININGS


def test_the_defaults_and_an_empty_file(tmp_path):
    assert load_config() == Config() == load_config(write(tmp_path / "a.yaml", "# nothing\n"))
    assert load_config(write(tmp_path / "b.yaml", dump_config(Config()))) == Config()


def test_published_values_of_lap():
    config = Config()
    assert (config.model.layer_pool.num_heads, config.model.layer_pool.out_dim) == (16, 512)
    assert config.model.embed_dim == 192 and config.score.top_n == 300
    assert (config.loss.num_subcenters, config.loss.top_k) == (3, 5)


def test_it_is_frozen():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Config().train.epochs = 3


@pytest.mark.parametrize(("override", "complaint"), [
    ("trian.epochs=3", "trian: unknown key; did you mean 'train'?"),
    ("train.epoch=3", "train.epoch: unknown key; did you mean 'epochs'?"),
    ("loss.schedule.start=1", "loss.schedule.start: unknown key; did you mean 'start_epoch'?"),
    ("model.layer_pool.num_head=4", "  model.layer_pool.num_head: unknown key; did you mean"),
    ("model.time_pool.droput=0", "droput: unknown key; did you mean 'dropout'?"),
    ("qqq=1", "qqq: unknown key; known: seed, frontend, features, data, model, loss, contrastive, "
     "distill, train, score"),
    ("train.batch_size=lots", "train.batch_size: Input should be a valid integer"),
    ("train.lr=0", "train.lr: Input should be greater than 0 (got 0)"),
    ("train.lr=on", "train: true and false (yes, no, on, off) are no values of lr"),
    ("seed=no", "true and false (yes, no, on, off) are no values of seed"),
    ("train.lr=.inf", "train.lr: Input should be a finite number (got inf)"),
    ("train.lr=", "train.lr: Input should be a valid number (got None)"),
    ("features.codec=int3", "features.codec: Input should be 'float16', 'float32' or 'int8' (got"),
    ("features.precision=fp16", "features.precision: Input should be 'auto', 'float32' or 'bf16'"),
    ("features.layers=[]", "features.layers: Tuple should have at least 1 item"),
    ("features.layers=[0, -1]", "features.layers.1: Input should be greater than or equal to 0"),
    ("features.layers=[0, 4, 4]", "features: want layers in rising order, got [0, 4, 4]"),
    ("features={layers: [0], layer_stride: 2}", "layers and layer_stride both choose layers; keep"),
    ("features.frame_stride=0", "features.frame_stride: Input should be greater than or equal"),
    ("features.segments.number=3", "features.segments.number: unknown key; did you mean 'num'?"),
    ("features.segments.seconds=0", "features.segments.seconds: Input should be greater than 0"),
    ("features.copies=[clean, nosie]", "features.copies.1: String should match pattern"),
    ("features.copies=[noise]", "features.copies: want each copy once, and clean among them"),
    ("features.copies=[clean, clean]", "features.copies: want each copy once, and clean"),
    ("train.copy_weights={noise: 1}", "train.copy_weights: noise: not in features.copies"),
    ("train.copy_weights={clean: -1}", "train.copy_weights.clean: Input should be greater than or"),
    ("model.layer_pool.name=lapp", "model.layer_pool: Input tag 'lapp'"),
    ("model.layer_pool.dropout=2", "  model.layer_pool.dropout: Input should be less than 1"),
    ("loss={name: softmax, margin: 0.2}", "loss.margin: unknown key; known: name"),
    ("distill={name: label}", "distill.teacher: Field required"),
    ("contrastive.weight=0.1", "contrastive: wants a model.frame_net with several scales"),
    ("train.utts_per_speaker=5", "train: batch_size 512 is no multiple of utts_per_speaker 5"),
    ("train=3", "train: Input should be a valid dictionary"),
])
def test_a_mistake_is_named_with_what_may_have_been_meant(override, complaint):
    with pytest.raises(ValueError) as info:
        load_config(overrides=[override])
    first, line = str(info.value).split("\n")
    assert first == "the configuration: 1 mistake(s)" and complaint in line


@pytest.mark.parametrize("setting", [
    ["features.copies=[clean, noise, speed0.9]"], ["data.source=wave", "data.speeds=[1.0, 0.9]"]])
def test_no_teacher_has_heard_copies_at_other_speeds(setting):
    name = setting[-1].partition("=")[0]
    with pytest.raises(ValueError, match=f"{name}: a teacher has embedded the recordings"):
        load_config(overrides=["distill={name: label, teacher: exp/lap}", *setting])
    load_config(overrides=["distill={name: label, teacher: exp/lap}",
                           "features.copies=[clean, noise]"])


def test_a_teacher_of_crops_wants_whole_utterances():
    distill = "distill={name: label, teacher: exp/lap, feats: feats/large/train}"
    with pytest.raises(ValueError, match=r"features.segments: a teacher with distill.feats has to"):
        load_config(overrides=[distill, "features.segments.num=2"])
    assert load_config(overrides=[distill]).distill.feats == "feats/large/train"


def test_a_part_of_the_features_is_chosen(tmp_path):
    features = load_config().features
    assert (features.layers, features.layer_stride, features.frame_stride) == (None, 1, 1)
    assert features.segments is None
    path = write(tmp_path / "a.yaml", "features: {codec: int8, layers: [0, 4, 8], frame_stride: 2,"
                                      " segments: {seconds: 3}}\n")
    config = load_config(path)
    assert config.features.model_dump() == {
        "codec": "int8", "precision": "float32", "layers": (0, 4, 8), "layer_stride": 1,
        "frame_stride": 2,
        "segments": {"num": 3, "seconds": 3.0, "seed": 0}, "copies": ("clean",), "copies_seed": 0}
    assert Config.model_validate(yaml.safe_load(dump_config(config))) == config


def test_a_section_that_is_off_is_switched_on(tmp_path):
    path = write(tmp_path / "a.yaml", dump_config(Config()))
    segments = load_config(path, ["features.segments.num=2"]).features.segments
    assert (segments.num, segments.seconds) == (2, 4.0)
    assert load_config(path, ["features.segments={}"]).features.segments.num == 3
    assert load_config(path, ["features.segments.num=2", "features.segments="]
                       ).features.segments is None


def test_weighted_sum_has_no_heads():
    with pytest.raises(ValueError, match=r"num_heads: unknown key; known: name"):
        load_config(overrides=["layer_aggregation=superb", "n_head=8"])


def test_filter_banks_have_options_of_their_own():
    frontend = load_config(overrides=["frontend.name=fbank"]).frontend
    assert frontend.model_dump() == {"name": "fbank", "num_mels": 80, "mean_norm": True}
    changed = load_config(overrides=["frontend={name: fbank, num_mels: 40, mean_norm: false}"])
    assert (changed.frontend.num_mels, changed.frontend.mean_norm) == (40, False)
    assert Config.model_validate(yaml.safe_load(dump_config(changed))) == changed


@pytest.mark.parametrize(("override", "complaint"), [
    ("{name: fbank, last_state: before_norm}",
     "last_state: unknown key; known: name, num_mels, mean_norm"),
    ("{name: fbank, num_mel: 40}", "num_mel: unknown key; did you mean 'num_mels'?"),
    ("{name: fbank, num_mels: 3}", "num_mels: Input should be greater than or equal to 4 (got 3)"),
    ("{name: wavlm_tiny, num_mels: 40}", "num_mels: unknown key; known: name, bundle, last_state"),
    ("{num_mels: 40}", "num_mels: unknown key; known: name, bundle, last_state"),
    ("{last_stat: x}", "last_stat: unknown key; did you mean 'last_state'?"),
    ("{name: 3}", "name: Input should be a valid string (got 3)"),
    ("fbank", "Input should be a valid dictionary"),
])
def test_an_option_of_another_frontend_is_a_mistake(override, complaint):
    with pytest.raises(ValueError) as info:
        load_config(overrides=[f"frontend={override}"])
    first, line = str(info.value).split("\n")
    assert first == "the configuration: 1 mistake(s)" and complaint in line


def test_all_mistakes_are_told_at_once(tmp_path):
    path = write(tmp_path / "a.yaml", "sead: 1\ntrain: {epohcs: 3, lr: -1}\nscore: {top_n: one}\n"
                                      "model: {time_pool: {name: mean}, embed_dim: 0}\n")
    with pytest.raises(ValueError) as info:
        load_config(path, ["loss.margn=0.3"])
    first, *lines = str(info.value).split("\n")
    assert first == f"{path}: 7 mistake(s)" and len(lines) == 7
    for place in ("sead", "train.epohcs", "train.lr", "score.top_n", "model.time_pool",
                  "model.embed_dim", "loss.margn"):
        assert sum(line.startswith(f"  {place}: ") for line in lines) == 1, place


@pytest.mark.parametrize(("text", "message"), [
    ("seed: 1\ntrain: {epochs: 3\n", r"a\.yaml: not YAML: (.|\n)*line 2"),
    ("train:\n  lr: 1\n  epochs: 2\n  lr: 2\n", r"a\.yaml: not YAML: lr stands twice, .*line 4,"),
    ("seed: 1\nseed: 2\n", r"a\.yaml: not YAML: seed stands twice, .*line 2,"),
    ("- 1\n- 2\n", r"a\.yaml: expected 'key: value' lines, got list"),
    ("only words\n", r"a\.yaml: expected 'key: value' lines, got str"),
    ("a: !!python/object/apply:os.system [echo]\n", r"a\.yaml: not YAML: could not determine"),
])
def test_a_file_that_is_no_configuration(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_config(write(tmp_path / "a.yaml", text))


def test_a_missing_file_and_one_that_is_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such configuration file"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.yaml: not readable as UTF-8"):
        load_config(tmp_path / "a.yaml")


def test_overrides_win_and_the_last_one_most(tmp_path):
    path = write(tmp_path / "a.yaml", "seed: 1\ntrain: {epochs: 3, lr: 0.5}\nn_head: 8\n")
    config = load_config(path, ["train.epochs=4", "seed=2", "train.epochs=5", "train.lr=1e-3",
                                "model.layer_pool.num_heads=4", "frontend.name=a=b"])
    assert (config.train.epochs, config.seed, config.train.lr) == (5, 2, 1e-3)
    assert config.model.layer_pool.num_heads == 4
    assert config.frontend.name == "a=b"


@pytest.mark.parametrize("item", ["train.epochs", "=3", "train.epochs 3"])
def test_an_override_without_a_value(item):
    with pytest.raises(ValueError, match=f"override '{item}': expected section.key=value"):
        load_config(overrides=[item])


def test_other_bad_overrides():
    with pytest.raises(ValueError, match=r"override 'train.lr=\[1': not YAML"):
        load_config(overrides=["train.lr=[1"])
    with pytest.raises(ValueError, match=r"override 'seed.x=1': seed is a value, not a section"):
        load_config(overrides=["seed=3", "seed.x=1"])


def test_options_without_a_name_are_those_of_the_default():
    assert load_config(overrides=["model.layer_pool.out_dim=64"]).model.layer_pool.out_dim == 64
    assert load_config(overrides=["model.time_pool.reduction=1"]).model.time_pool.reduction == 1


VALUES = {"frontend_cfg": ({"name": "mine"}, "mine"), "layer_aggregation": ("lap", "lap"),
          "speaker_network": ("astp", "astp"), "n_head": (4, 4), "hidden_size": (64, 64),
          "embed_size": (96, 96), "cohort_size": (20, 20), "n_subcenter": (2, 2), "topK": (7, 7)}


def test_the_aliases_are_those_that_are_agreed():
    assert ALIASES.keys() == VALUES.keys()


@pytest.mark.parametrize("alias", VALUES)
@pytest.mark.parametrize("as_override", [False, True])
def test_the_names_of_laps_own_code(tmp_path, alias, as_override):
    value, wanted = VALUES[alias]
    path = write(tmp_path / "a.yaml", "" if as_override else yaml.safe_dump({alias: value}))
    config = load_config(path, [f"{alias}={value}"] if as_override else ())
    place = ALIASES[alias] + (".name" if alias == "frontend_cfg" else "")
    assert get_value(config, place) == wanted


def test_laps_word_for_the_weighted_sum(tmp_path):
    path = write(tmp_path / "a.yaml", "layer_aggregation: superb\n")
    assert load_config(path).model.layer_pool.name == "weighted_sum"
    config = load_config(path, ["layer_aggregation=lap", "frontend.name=superb"])
    assert config.model.layer_pool.name == "lap"
    assert config.frontend.name == "superb"  # the word is translated where it is one of LAP's


def test_a_section_under_its_other_name_is_merged(tmp_path):
    path = write(tmp_path / "a.yaml", "frontend: {name: mine, max_seconds: 9}\n")
    frontend = load_config(path, ["frontend_cfg.max_seconds=10"]).frontend
    assert (frontend.name, frontend.max_seconds) == ("mine", 10)


def test_a_value_given_under_both_names_is_refused(tmp_path):
    path = write(tmp_path / "a.yaml", "n_head: 8\nmodel: {layer_pool: {num_heads: 4}}\n")
    with pytest.raises(ValueError, match=r"a\.yaml: n_head is another name of "
                                         r"model\.layer_pool\.num_heads, which is given too"):
        load_config(path)


def test_a_pretraining_is_as_strict(tmp_path):
    path = write(tmp_path / "a.yaml", "encoder: {dimm: 96}\ntrain: {steps: 0}\nn_head: 8\n")
    with pytest.raises(ValueError) as info:
        load_pretrain_config(path, ["crops.mix_db=[1]", "masked.span=x"])
    first, *lines = str(info.value).split("\n")
    assert first == f"{path}: 5 mistake(s)" and len(lines) == 5
    for line in ("encoder.dimm: unknown key; did you mean 'dim'?", "crops.mix_db.1: Field required",
                 "train.steps: Input should be greater than or equal to 1 (got 0)",
                 "masked.span: Input should be a valid integer",
                 "n_head: unknown key; known: seed, encoder, crops"):  # another one's other names
        assert any(found.startswith(f"  {line}") for found in lines), (line, lines)
    with pytest.raises(ValueError, match=r"\n  top level: contrastive\.layer 9: the encoder has"):
        load_pretrain_config(overrides=["contrastive.layer=9"])
    assert load_pretrain_config() == PretrainConfig()


def test_get_value():
    config = load_config(overrides=["frontend.name=é"])
    assert get_value(config, "frontend.name") == "é"
    assert get_value(config, "loss.schedule") == {"initial": 0.0, "start_epoch": 0.0,
                                                  "end_epoch": 20.0, "shape": "log"}
    for dotted in ("frontend.nam", "seed.x", ""):
        with pytest.raises(ValueError, match=f"no value '{dotted}' in the configuration"):
            get_value(config, dotted)
