#!/usr/bin/env bash
# Runs the tests: bash tools/test.sh [pytest's arguments], for example `bash tools/test.sh tests/io -x`.
# Makes the environment first (tools/env.sh). The exit code is pytest's.
set -euo pipefail
env_tests=true # read by env.sh: the tests' own requirements as well
. "$(dirname -- "${BASH_SOURCE[0]}")/env.sh"
cd -- "$ENV_ROOT"

# Test models are so small that threads cost more than they bring, and some tests start two
# processes. A machine with many cores must not give other sums than one with two.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export MPLBACKEND=Agg             # plots without a screen
export TOKENIZERS_PARALLELISM=false # a warning for each test that forks
# Two processes, each with whole files, whose fixtures are made once; `-n 0` for one, as with --pdb.
exec "$PYTHON" -m pytest --numprocesses 2 --dist loadfile "$@"
