#!/usr/bin/env bash
# VoxCeleb with log mel filter banks in an encoder's place: ECAPA-TDNN, MFA-Conformer, and students of
# a system of ../v1. The data is that of ../v1, whose stage 1 comes first.
#
#   bash run.sh [--config conf/ecapa512.yaml]
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. ../../sv.sh

stage=2
config=conf/mfa_conformer.yaml
data=../v1/data
train_set=vox2_dev
test_sets=vox1
prepare() { die "../v1 prepares the data: bash ../v1/run.sh --stop_stage 1, see README.md"; }
run_stages "$@"
