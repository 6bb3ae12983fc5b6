#!/usr/bin/env bash
# LibriSpeech (OpenSLR 12): train on 2,338 readers, test on the 73 of test-clean and test-other.
#
#   bash run.sh --corpus_dir DIR              a copy on disk, with SPEAKERS.TXT
#   bash run.sh --stage 0 --corpus_dir DIR    downloads it to DIR first (61 GB)
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. ../../sv.sh

config=conf/wavlm_base_plus_unipool.yaml
corpus_dir=        # the corpus: SPEAKERS.TXT, dev-clean/, dev-other/, …
train_parts=       # "train-clean-100" alone, for instance; all three where empty
lists_dir=         # valid.kaldi.gz and test.kaldi.gz; local/lists where empty
incomplete_lists=  # skip or keep: what to do about a list with utterances that are not there
PREPARE_OPTIONS=(corpus_dir train_parts lists_dir incomplete_lists)
run_stages "$@"
