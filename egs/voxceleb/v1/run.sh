#!/usr/bin/env bash
# VoxCeleb: train on VoxCeleb2 dev, test on Vox1-O, E and H. Frozen WavLM, LAP, ASTP.
#
#   bash run.sh --vox1_dir DIR --vox2_dir DIR --lists_dir DIR [--config conf/wavlm_large_lap.yaml]
#
# README.md says how to get the corpus and which folder layouts are understood.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. ../../sv.sh

config=conf/wavlm_base_plus_lap.yaml
train_set=vox2_dev
test_sets=vox1
vox1_dir=            # VoxCeleb1, dev and test
vox2_dir=            # VoxCeleb2 dev, wav or m4a
lists_dir=           # the official trial lists and metadata; vox1_dir is searched too
incomplete_lists=    # skip or keep: what to do about a list with utterances that are not there
wav_dir=             # where converted m4a go; $data/wav_vox2 where empty
musan_dir=           # MUSAN, for augmentation
rirs_dir=            # RIRS_NOISES, for augmentation
num_valid_speakers=  # held back from VoxCeleb2 dev
split_seed=          # which ones
max_failures=        # share of m4a that may fail to convert
PREPARE_OPTIONS=(vox1_dir vox2_dir lists_dir incomplete_lists wav_dir musan_dir rirs_dir
    num_valid_speakers split_seed max_failures)
run_stages "$@"
