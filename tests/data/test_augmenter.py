"""Copies of utterances: which recordings and ratios are drawn, and that only the ids decide it.

Noises and voices are tones of their own frequencies, so that a spectrum tells who is in a mixture.
"""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from wespeaker_lap.data.augmenter import Augmenter, RecordingCache
from wespeaker_lap.data.copies import parse_copies
from wespeaker_lap.io.audio import write_wav

RATE, SIZE = 16000, 1600  # bins of 10 Hz
NUM_SPEAKERS, NUM_EACH = 6, 3
CATEGORIES = {"n0": "noise", "n1": "music", "n2": "speech"}
ALL = parse_copies(["clean", "noise", "reverb", "babble", "speed0.9", "speed1.1"])
COPY = {copy.name: copy for copy in ALL}


def write_tone(path: Path, hertz: int, seconds: float) -> str:
    write_wav(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE))
    return str(path)


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict:
    """Noise n<i> is a tone of 100 (i + 1) Hz; voice s<i>u<j> one of 1000 (i + 1) + 100 j Hz."""
    folder = tmp_path_factory.mktemp("tables")
    noises = {f"n{i}": write_tone(folder / f"n{i}.wav", 100 * (i + 1), 0.25) for i in range(4)}
    voices = {f"s{i}u{j}": write_tone(folder / f"s{i}u{j}.wav", 1000 * (i + 1) + 100 * j, 0.15)
              for i in range(NUM_SPEAKERS) for j in range(NUM_EACH)}
    response = np.zeros(500)
    response[[100, 150]] = 0.8, 0.4
    write_wav(folder / "rir.wav", response)
    return {"noises": noises, "rirs": {"r": str(folder / "rir.wav")}, "voices": voices,
            "utt2spk": {utt: utt[:2] for utt in voices} | {"stranger": "x"}}


def make(tables, copies=ALL, seed=1, **changes) -> Augmenter:
    return Augmenter(copies, seed, **{**tables, **changes})


def make_wave(seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(SIZE)).astype(np.float32)


def measure_tones(added: np.ndarray) -> dict[int, float]:
    """Frequency in Hz -> power, of all tones that stand out."""
    powers = 2 * np.abs(np.fft.rfft(added.astype(np.float64)) / SIZE) ** 2
    return {int(n) * 10: powers[n] for n in np.flatnonzero(powers > powers.max() / 100)}


def measure_decibels(wave: np.ndarray, added: np.ndarray) -> float:
    return 10 * np.log10(np.sum(np.square(wave, dtype=np.float64)) / np.sum(np.square(added)))


def test_noise_is_one_recording_at_its_categorys_ratio(tables):
    """100 and 400 Hz are noise (one by default), 200 Hz is music, 300 Hz speech, left out."""
    augmenter, wave = make(tables, categories=CATEGORIES), make_wave()
    ratios: dict[int, list[float]] = {}
    for number in range(200):
        added = augmenter.apply(COPY["noise"], f"u{number}", wave).astype(np.float64) - wave
        hertz, = measure_tones(added)
        ratios.setdefault(hertz, []).append(measure_decibels(wave, added))
    assert ratios.keys() == {100, 200, 400}
    assert min(len(found) for found in ratios.values()) > 40  # of 67
    for hertz, (low, high) in {100: (0, 15), 200: (5, 15), 400: (0, 15)}.items():
        assert low - 0.01 < min(ratios[hertz]) < low + 1
        assert high - 1 < max(ratios[hertz]) < high + 0.01


def test_babble_is_three_to_eight_others_equally_loud(tables):
    augmenter, wave = make(tables), make_wave()
    sizes, ratios, heard = [], [], set()
    for number in range(150):
        own = number % NUM_SPEAKERS
        utt = f"s{own}u{number % NUM_EACH}"
        shifted = make(tables, seed=number) if number > 20 else augmenter
        added = shifted.apply(COPY["babble"], utt, wave).astype(np.float64) - wave
        tones = measure_tones(added)
        assert own + 1 not in {hertz // 1000 for hertz in tones}
        np.testing.assert_allclose(list(tones.values()), np.mean(list(tones.values())), rtol=0.01)
        sizes.append(len(tones))
        ratios.append(measure_decibels(wave, added))
        heard |= tones.keys()
    assert set(sizes) == {3, 4, 5, 6, 7, 8}
    assert 13 - 0.01 < min(ratios) < 13.5 and 19.5 < max(ratios) < 20.01
    assert heard == {1000 * (i + 1) + 100 * j for i in range(NUM_SPEAKERS) for j in range(NUM_EACH)}


def test_babble_behind_a_stranger_is_of_anybody(tables):
    """Whose speaker must be known none the less."""
    wave, heard = make_wave(), set()
    for seed in range(30):
        result = make(tables, seed=seed).apply(COPY["babble"], "stranger", wave)
        heard |= {hertz // 1000 for hertz in measure_tones(result - wave)}
    assert heard == set(range(1, NUM_SPEAKERS + 1))
    with pytest.raises(ValueError, match=r"^who: copy 'babble': utt2spk does not name its speaker"):
        make(tables).apply(COPY["babble"], "who", wave)


def test_the_other_copies(tables):
    augmenter, wave = make(tables), make_wave()
    assert np.array_equal(augmenter.apply(COPY["clean"], "u", wave), wave)
    echo = wave.astype(np.float64)
    echo[50:] += wave[:-50] / 2
    echo *= np.linalg.norm(wave) / np.linalg.norm(echo)
    np.testing.assert_allclose(augmenter.apply(COPY["reverb"], "u", wave), echo, atol=1e-4)
    for name, size in (("speed0.9", SIZE / 0.9), ("speed1.1", SIZE / 1.1)):
        result = augmenter.apply(COPY[name], "u", wave)
        assert result.dtype == np.float32
        assert len(result) == pytest.approx(size, abs=1)


def test_ranges_are_arguments(tables):
    wave = make_wave()
    augmenter = make(tables, noise_db=(3, 3), babble_db=(1, 1), num_voices=(2, 2))
    for name, ratio in (("noise", 3), ("babble", 1)):
        added = augmenter.apply(COPY[name], "s0u0", wave).astype(np.float64) - wave
        assert measure_decibels(wave, added) == pytest.approx(ratio, abs=0.01)
    assert len(measure_tones(added)) == 2
    all_others = make(tables, num_voices=(15, 99)).apply(COPY["babble"], "s0u0", wave)
    assert len(measure_tones(all_others - wave)) == 15


def test_other_rates_are_resampled(tables):
    """At 8 kHz a bin of 1600 samples is 5 Hz, so a tone of 100 Hz appears at 200."""
    noises, wave = {"n0": tables["noises"]["n0"]}, make_wave()
    augmenter = make(tables, noises=noises, sample_rate=8000)
    tones = measure_tones((augmenter.apply(COPY["noise"], "u", wave) - wave) * np.hanning(SIZE))
    assert max(tones, key=tones.get) == 200


def test_a_copy_follows_from_seed_copy_and_utterance(tables):
    """Not from the order of calls, of the tables or of the copies, nor from the process."""
    utts, wave = [f"s{i}u0" for i in range(NUM_SPEAKERS)], make_wave()
    turned = {name: dict(reversed(table.items())) for name, table in tables.items()}
    one, other = make(tables), make(turned, ALL[::-1])
    keys = [(copy, utt) for copy in ALL for utt in utts]
    first = {key: one.apply(*key, wave).tobytes() for key in keys}
    assert {key: other.apply(*key, wave).tobytes() for key in keys[::-1]} == first
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        made = pool.starmap(one.apply, [(*key, wave) for key in keys])
    assert {key: result.tobytes() for key, result in zip(keys, made, strict=True)} == first
    seeded = make(tables, seed=2)
    for name in ("noise", "babble"):
        assert len({first[COPY[name], utt] for utt in utts}) == len(utts)
        assert all(seeded.apply(COPY[name], utt, wave).tobytes() != first[COPY[name], utt]
                   for utt in utts)


def test_copies_are_drawn_independently(tables, tmp_path):
    """Of four noises and four responses, told by their echo, not the same numbers go together."""
    rirs = {}
    for n in range(4):
        response = np.zeros(300)
        response[[0, 50 * (n + 1)]] = 0.8, 0.4
        rirs[f"r{n}"] = str(tmp_path / f"{n}.wav")
        write_wav(rirs[f"r{n}"], response)
    augmenter, click = make(tables, rirs=rirs), make_wave() * (np.arange(SIZE) == 100)
    pairs = []
    for utt in range(100):
        echoes = np.abs(augmenter.apply(COPY["reverb"], str(utt), click.astype(np.float32)))
        added = augmenter.apply(COPY["noise"], str(utt), make_wave()) - make_wave()
        pairs.append((echoes[101:].argmax() // 50, max(measure_tones(added)) // 100 - 1))
    table = np.zeros((4, 4))
    np.add.at(table, tuple(np.array(pairs).T), 1)
    assert table.sum(0).min() > 10 and table.sum(1).min() > 10  # of 25
    assert np.trace(table) < 45


def test_silent_waves_stay_silent(tables):
    augmenter, silence = make(tables), np.zeros(SIZE, np.float32)
    for copy in ALL:
        assert not augmenter.apply(copy, "s0u0", silence).any()


@pytest.mark.parametrize(("copy", "table", "option"), [
    ("noise", "noises", "--noise_scp"), ("reverb", "rirs", "--rir_scp"),
    ("babble", "voices", "--babble_scp")])
def test_a_copy_without_its_table_is_refused_at_once(tables, copy, table, option):
    for nothing in (None, {}):
        with pytest.raises(ValueError, match=f"the copy '{copy}' needs recordings .* {option}"):
            make(tables, **{table: nothing})
    make(tables, [one for one in ALL if one.name != copy], **{table: None})


@pytest.mark.parametrize(("changes", "message"), [
    ({"categories": dict.fromkeys(["n0", "n1", "n2", "n3"], "speech")}, "'noise' needs recordings"),
    ({"categories": {"n1": "Music"}}, "category of n1 is none of noise, music, speech"),
    ({"noise_db": (15, 0)}, "noise_db: want a lowest and a highest number, got 15, 0"),
    ({"babble_db": (0, float("nan"))}, "babble_db: want a lowest"),
    ({"num_voices": (0, 3)}, "num_voices: want 1 or more, got 0"),
    ({"num_voices": (16, 20)}, "only 15 recordings of others, want 16 .* --babble_scp"),
    ({"utt2spk": {"s0u0": "s0"}}, "utt2spk has no speaker for s0u1"),
    ({"utt2spk": None}, "utt2spk has no speaker for s0u0")])
def test_wrong_arguments_are_refused(tables, changes, message):
    with pytest.raises(ValueError, match=message):
        make(tables, **changes)


def test_errors_name_the_utterance_and_the_file(tables, tmp_path):
    augmenter = make(tables, noises={"n": str(tmp_path / "gone.wav")}, rirs={
        "r": write_tone(tmp_path / "silent.wav", 0, 0.1)})
    with pytest.raises(ValueError, match=r"^u1: copy 'noise': .*gone\.wav: no such file"):
        augmenter.apply(COPY["noise"], "u1", make_wave())
    with pytest.raises(ValueError, match=r"^u1: copy 'reverb': .* all zeros"):
        augmenter.apply(COPY["reverb"], "u1", make_wave())
    with pytest.raises(ValueError, match=r"gone\.wav: no such file \(n of"):
        augmenter.identity()
    for copy in ALL[1:]:
        with pytest.raises(ValueError, match=rf"s0u0: copy '{copy.name}': .*(no such|wave|zeros)"):
            augmenter.apply(copy, "s0u0", make_wave()[:0])
    with pytest.raises(ValueError, match="u1: the copy 'noise' is not among clean, reverb"):
        make(tables, parse_copies(["clean", "reverb"])).apply(COPY["noise"], "u1", make_wave())


def test_identity_is_json_and_says_what_the_copies_follow_from(tables):
    identity = make(tables).identity()
    assert json.loads(json.dumps(identity)) == identity == make(tables).identity()
    turned = {name: dict(reversed(table.items())) for name, table in tables.items()}
    assert make(turned).identity() == identity
    assert identity["copies"] == ["clean", "noise", "reverb", "babble", "speed0.9", "speed1.1"]
    assert (identity["seed"], identity["noise_db"]) == (1, [0, 15])
    assert (identity["babble_db"], identity["num_voices"]) == ([13, 20], [3, 8])
    for changes in ({"seed": 2}, {"noise_db": (1, 15)}, {"music_db": (6, 15)},
                    {"num_voices": (4, 8)}, {"babble_db": (13, 19)}, {"copies": ALL[:-1]},
                    {"categories": CATEGORIES},
                    {"categories": {"n1": "music"}},
                    {"utt2spk": {**tables["utt2spk"], "s0u0": "s1"}},
                    *({name: {"z" + utt: path for utt, path in tables[name].items()},
                       "utt2spk": {"z" + utt: spk for utt, spk in tables["utt2spk"].items()}
                       | tables["utt2spk"]} for name in ("noises", "rirs", "voices"))):
        assert make(tables, **changes).identity() != identity


def test_identity_knows_another_file_but_not_another_place(tables, tmp_path):
    copies = parse_copies(["noise"])
    identity = make(tables, copies).identity()
    moved = {utt: str(tmp_path / f"{utt}.wav") for utt in tables["noises"]}
    for utt, path in moved.items():
        Path(path).write_bytes(Path(tables["noises"][utt]).read_bytes())
    assert make(tables, copies, noises=moved).identity() == identity
    write_tone(Path(moved["n0"]), 100, 0.3)
    assert make(tables, copies, noises=moved).identity() != identity


def test_identity_leaves_out_what_the_copies_do_not_need(tables):
    for names in (["clean"], ["speed0.9"]):
        copies = parse_copies(names)
        assert Augmenter(copies, 1).identity() == make(tables, copies, seed=2).identity()
        assert Augmenter(copies, 1).identity() == {"copies": names}
    assert "babble_db" not in make(tables, parse_copies(["noise"])).identity()


def test_the_cache_keeps_what_was_used_last(tmp_path):
    paths = [write_tone(tmp_path / f"{n}.wav", 100, 0.1) for n in range(3)]
    cache = RecordingCache(RATE, max_bytes=2 * 1600 * 4)
    first = cache.read(paths[0])
    assert first.shape == (1600,) and not first.flags.writeable
    cache.read(paths[1])
    assert cache.read(paths[0]) is first
    cache.read(paths[2])
    assert list(cache.kept) == [paths[0], paths[2]]
