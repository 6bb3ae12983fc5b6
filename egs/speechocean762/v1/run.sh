#!/usr/bin/env bash
# speechocean762 (OpenSLR 101): 250 speakers, 5,000 utterances of read English.
#
#   bash run.sh --corpus_dir DIR              a copy on disk
#   bash run.sh --stage 0 --corpus_dir DIR    downloads it to DIR first (520 MB)
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. ../../sv.sh

corpus_dir=     # the corpus: WAVE/, train/ and test/
train_set=train_sp tune_set=train cohort_set=train
split_seed=     # which 13 of the training speakers are held back for validation
PREPARE_OPTIONS=(corpus_dir split_seed)
run_stages "$@"
