#!/usr/bin/env bash
# A corpus of your own: copy this folder to egs/<corpus>/v1, edit the five lines below, run it.
#
#   bash run.sh --stop_stage 1     prepares the data; then look at data/audit.html
#   bash run.sh                    all of it
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. ../../sv.sh

wav_dir=           # the folder of the recordings; nothing in it is changed
spk_from=parent    # who speaks: parent (the folder that a recording lies in), regex or csv
regex='' csv=      # for regex: '^(?P<spk>[^/]+)/' and the like; for csv: a table
valid=0.1 test=0.2 # speakers held back to watch the training and for the trials: a share, or a number
config=../../speechocean762/v1/conf/lap.yaml # encoder, back end, training

make_trials=false # local/prepare_data.py has made them
PREPARE_OPTIONS=(wav_dir spk_from regex csv valid test min_seconds max_reject_share)
run_stages "$@"
