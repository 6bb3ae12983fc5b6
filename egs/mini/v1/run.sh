#!/usr/bin/env bash
# The whole recipe on synthetic voices: no download, no account, no GPU, a few minutes on two cores.
#
#   bash run.sh [--stage 3 --stop_stage 5 --config conf/weighted_sum.yaml …]
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. ../../sv.sh

data_seed=1 # of the voices, their sentences and their noise
train_size= # speakers x utterances, such as 100x30
valid_size=
test_size=
PREPARE_OPTIONS=(data_seed train_size valid_size test_size)
run_stages "$@"
