#!/usr/bin/env bash
# VCTK (Edinburgh DataShare): train on 72 speakers, test on 18 others, as in UniPool.
#
#   bash run.sh --corpus_dir DIR              a copy on disk, release 0.92 or 0.80
#   bash run.sh --stage 0 --corpus_dir DIR    downloads release 0.92 to DIR first (11.7 GB)
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. ../../sv.sh

config=conf/wavlm_base_plus_unipool.yaml
corpus_dir=        # the corpus, with wav48_silence_trimmed/ or wav48/
mic=               # 1 or 2, of release 0.92; 1 where empty
first_sentence=    # those before are left out; 25 where empty
lists_dir=         # speakers, valid.kaldi.gz and test.kaldi.gz; local/lists where empty
incomplete_lists=  # skip or keep: what to do about a list with utterances that are not there
PREPARE_OPTIONS=(corpus_dir mic first_sentence lists_dir incomplete_lists)
run_stages "$@"
