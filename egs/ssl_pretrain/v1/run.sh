#!/usr/bin/env bash
# Pre-trains a small WavLM encoder on speech without labels.
#
#   bash run.sh --corpus_dir DIR              the training speakers of speechocean762 (OpenSLR 101)
#   bash run.sh --unlabelled "DIR DIR" --noise_scp FILE --rir_scp FILE
#
#   1 prepare the data      2 pack      3 pre-train      4 probe the layers
#
# A stage goes on where it stopped: after an error, run the same command again.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. ../../../tools/recipe.sh

stage=1 stop_stage=4 # from this stage to that one
dry_run=false       # print what would run
config=conf/wavlm_tiny.yaml
overrides=          # "train.steps=500 encoder.dim=96": changes to the configuration
seed=               # of the training; the configuration's where empty
data=data           # data directories and packs; all paths: from the recipe's folder
exp_dir=            # everything of this training; exp/<name of the configuration> where empty
corpus_dir=         # speechocean762: WAVE/, train/ and test/
unlabelled=         # "DIR DIR": each with a wav.scp and perhaps utt2spk; paths relative to DIR
synthetic_data=     # a data directory such as ../../mini/v1/data/train
speed_factors=      # "0.9 1.1": a copy of all speech at each of these speeds
noise_scp=          # wav.scp of noises, paths relative to its folder
rir_scp=            # the same of impulse responses
probe_data=         # stage 4: data directory with speakers; skipped where empty
probe_test_data=    # other speakers; half of those of probe_data where empty
probe_trials=       # of probe_test_data; made where empty
nj=                 # processes for work on the CPU; one a core where empty
nproc=              # training processes on this machine; one a GPU, or 1
gpus=               # "[0,1]" or "0 1"
device=auto         # auto, cpu, cuda, mps
num_nodes=1 rdzv_endpoint= # machines, and HOST:PORT, the same on all of them
min_seconds=0.1 max_reject_share=0.05 # shorter recordings are rejected, up to this share of all
parse_options "$@"
. ../../../tools/env.sh

lap() { run "$PYTHON" -m wespeaker_lap "$@"; }
prepare() { run "$PYTHON" local/prepare_data.py --data "$data" "$@"; }
audit() {
    lap audit-data "$data/$1" --nj "$nj" --min_seconds "$2" --max_reject_share "$max_reject_share"
}

CONFIG=(--config "$config")
# shellcheck disable=SC2086  # a list of overrides
for ITEM in $overrides ${seed:+"seed=$seed"}; do CONFIG+=(--set "$ITEM"); done
# A mistake in the configuration ends the recipe here, before any work.
"$PYTHON" -m wespeaker_lap show-config --pretraining "${CONFIG[@]}" >/dev/null
select_gpus "$gpus"
: "${nj:=$(count_cores)}"
: "${nproc:=$((num_gpus > 0 ? num_gpus : 1))}"
: "${exp_dir:=exp/$(basename "$config" .yaml)${seed:+-seed$seed}}"

# The sets that the options name, as local/prepare_data.py calls them.
SPEECH=()
read -r -a FOLDERS <<<"$unlabelled"
read -r -a FACTORS <<<"$speed_factors"
[ -z "$corpus_dir" ] || SPEECH+=(speechocean762)
for ITEM in ${FOLDERS[@]+"${FOLDERS[@]}"}; do SPEECH+=("$(basename "$ITEM")"); done
[ -z "$synthetic_data" ] || SPEECH+=(synthetic)
want_speech() {
    [ "${#SPEECH[@]}" -gt 0 ] ||
        die "no speech to learn from: give --corpus_dir, --unlabelled or --synthetic_data"
}

if stage 1 "prepare the data"; then
    want_speech
    prepare ${corpus_dir:+--corpus_dir "$corpus_dir"} \
        ${unlabelled:+--unlabelled "${FOLDERS[@]}"} \
        ${synthetic_data:+--synthetic_data "$synthetic_data"} \
        ${noise_scp:+--noise_scp "$noise_scp"} ${rir_scp:+--rir_scp "$rir_scp"}
    for SET in "${SPEECH[@]}" ${noise_scp:+noise}; do audit "$SET" "$min_seconds"; done
    [ -z "$rir_scp" ] || audit rir 0
    if [ -n "$speed_factors" ]; then
        prepare --nj "$nj" --copies_of "${SPEECH[@]}" --speed_factors "${FACTORS[@]}"
        for SET in "${SPEECH[@]}"; do audit "${SET}_sp" "$min_seconds"; done
    fi
fi
if stage 2 "pack"; then
    want_speech
    SETS=("${SPEECH[@]/%/${speed_factors:+_sp}}")
    lap pack-audio "${SETS[@]/#/$data/}" --out "$data/pack/speech" --nj "$nj"
    for SET in ${noise_scp:+noise} ${rir_scp:+rir}; do
        lap pack-audio "$data/$SET" --out "$data/pack/$SET" --nj "$nj"
    done
fi
if stage 3 "pre-train"; then
    launch "$nproc" pretrain --audio "$data/pack/speech" --exp_dir "$exp_dir" "${CONFIG[@]}" \
        ${noise_scp:+--noises "$data/pack/noise"} ${rir_scp:+--rirs "$data/pack/rir"} \
        --device "$device"
fi
if stage 4 "probe the layers"; then
    if [ -z "$probe_data" ]; then
        log "no --probe_data, a set with speakers to tell apart: the layers are not probed"
    else
        lap probe-layers "$exp_dir/encoder" "$probe_data" --out "$exp_dir/layers" \
            ${probe_test_data:+--test_data "$probe_test_data"} \
            ${probe_trials:+--trials "$probe_trials"} --device "$device"
    fi
fi
finish_stage && log "done: $exp_dir"
