#!/usr/bin/env bash
# Makes this checkout's Python environment once, and uses it.
#
#   . tools/env.sh        in a script or at a prompt: afterwards $PYTHON is the environment's
#                         interpreter and its commands come first in PATH
#   bash tools/env.sh     only makes it
#
# The environment is .venv beside setup.py: requirements.txt and, editable, the package;
# env_tests=true adds requirements-test.txt. A stamp (sha256 of those files and setup.py) is written
# last. Where it matches, nothing is done and nothing is said; where a file has changed, the
# difference is installed; an interrupted installation is made anew. pip's own settings (an index, a
# proxy, a cache) apply.
#
# WESPEAKER_LAP_PYTHON=/path/to/python uses that interpreter as it is and installs nothing (conda, a
# cluster's module, a container): `pip install -e .` there first. An environment that just happens
# to be active is not used, because its versions are not the tested ones.

ENV_ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
ENV_VENV="$ENV_ROOT/.venv"

env_say() { printf 'env.sh: %s\n' "$*" >&2; }

# env_wanted: what the stamp must begin with: the checkout's place (a .venv does not work elsewhere),
# then the hashes. The test set comes last, so that an environment with it serves the recipes too.
env_wanted() (
    cd -- "$ENV_ROOT" || return
    files=(setup.py requirements.txt)
    [ "${env_tests:-false}" != true ] || files+=(requirements-test.txt)
    printf '%s\n' "$ENV_ROOT"
    sha256sum -- "${files[@]}" 2>/dev/null || shasum -a 256 -- "${files[@]}"
)

# env_is_current: whether .venv has all that is wanted.
env_is_current() {
    [ -x "$ENV_VENV/bin/python" ] && [ -f "$ENV_VENV/stamp" ] || return 1
    [[ "$(<"$ENV_VENV/stamp")" == "$(env_wanted)"* ]]
}

# env_find_python: prints the first interpreter that can make the environment, or says why none can.
env_find_python() {
    local name found reason="" problem=""
    PATH="${PATH//"$ENV_VENV/bin:"/}" # an environment cannot be made anew from itself
    for name in python3 python3.13 python3.12 python3.11 python3.10; do
        found="$(command -v "$name")" || continue
        if ! "$found" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' \
            2>/dev/null; then
            reason="$found does not run or is not Python 3.10 to 3.14"
        elif ! "$found" -c 'import ensurepip, venv' 2>/dev/null; then
            reason="$found has no venv module (Debian and Ubuntu: apt-get install python3-venv)"
        else
            printf '%s\n' "$found"
            return 0
        fi
        problem="${problem:-$reason}"
    done
    env_say "error: ${problem:-there is no python3 in PATH}." \
        "Install Python 3.10 to 3.14, or set WESPEAKER_LAP_PYTHON to one that has the package."
    return 1
}

# env_lock PYTHON: waits until no other call makes this environment. The lock belongs to the open
# file, so it outlives the Python that takes it and ends with this shell.
env_lock() {
    exec 9>"$ENV_VENV.lock"
    "$1" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null && return
    env_say "waiting for another call that makes $ENV_VENV"
    "$1" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' ||
        env_say "warning: this file system has no locks; do not start two first runs at once"
}

# env_make_venv PYTHON: an environment with nothing in it, whatever an interrupted call has left.
env_make_venv() {
    if [ -e "$ENV_VENV/bin" ] && [ ! -e "$ENV_VENV/made_by_env_sh" ]; then
        env_say "error: $ENV_VENV was not made by tools/env.sh. Move it away, or set" \
            "WESPEAKER_LAP_PYTHON=$ENV_VENV/bin/python to use it as it is."
        return 1
    fi
    env_say "making $ENV_VENV with $1"
    mkdir -p -- "$ENV_VENV"
    : >"$ENV_VENV/made_by_env_sh"
    find "$ENV_VENV/" -mindepth 1 -maxdepth 1 ! -name made_by_env_sh -exec rm -rf -- {} +
    "$1" -m venv "$ENV_VENV"
}

# env_pip ARGS…: pip install, on standard error, because a caller's output is its own.
env_pip() {
    "$ENV_VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@" >&2 || {
        env_say "error: pip failed (above). When the cause is gone, run the same command again:" \
            "what was downloaded is kept."
        return 1
    }
}

# env_make: brings .venv to what is wanted; runs in a shell of its own.
env_make() {
    local base place="" options=(-r requirements.txt)
    base="$(env_find_python)"
    env_lock "$base"
    if env_is_current; then return; fi
    if [ -f "$ENV_VENV/stamp" ]; then read -r place <"$ENV_VENV/stamp" || true; fi
    if [ "$place" = "$ENV_ROOT" ] && [ -x "$ENV_VENV/bin/python" ]; then
        env_say "updating $ENV_VENV"
        rm -f -- "$ENV_VENV/stamp"
    else
        env_make_venv "$base"
    fi
    [ "${env_tests:-false}" != true ] || options+=(-r requirements-test.txt)
    env_say "installing ${options[*]} (the first time: gigabytes, minutes), then the package"
    cd -- "$ENV_ROOT"
    env_pip "${options[@]}"
    env_pip --no-deps --no-build-isolation --editable .
    env_wanted >"$ENV_VENV/stamp.partial"
    mv -- "$ENV_VENV/stamp.partial" "$ENV_VENV/stamp"
    env_say "ready: $ENV_VENV"
}

# env_check_given PYTHON: it must find the packages, and not just because they lie in this folder.
env_check_given() (
    wanted="wespeaker_lap torch torchaudio"
    [ "${env_tests:-false}" != true ] || wanted="$wanted pytest ruff transformers"
    code='import importlib.util as u, sys; print(*[m for m in sys.argv[1:] if not u.find_spec(m)])'
    # shellcheck disable=SC2086  # a list of names
    if ! missing="$(cd / && "$1" -c "$code" $wanted)"; then
        env_say "error: WESPEAKER_LAP_PYTHON=$1 does not run."
        return 1
    elif [ -n "$missing" ]; then
        env_say "error: WESPEAKER_LAP_PYTHON=$1 lacks: $missing. Install that there" \
            "(pip install -e $ENV_ROOT), or unset the variable to have .venv made."
        return 1
    fi
)

# env_use: sets PYTHON and PATH for the script that has sourced this file.
env_use() {
    if [ -n "${WESPEAKER_LAP_PYTHON:-}" ]; then
        PYTHON="$(command -v "$WESPEAKER_LAP_PYTHON")" || PYTHON="$WESPEAKER_LAP_PYTHON"
        [[ "$PYTHON" == /* ]] || PYTHON="$PWD/$PYTHON"
        env_check_given "$PYTHON" || return
    else
        env_is_current || env_tests="${env_tests:-false}" bash "$ENV_ROOT/tools/env.sh" || return
        PYTHON="$ENV_VENV/bin/python"
    fi
    [[ "$PATH" == "${PYTHON%/*}:"* ]] || PATH="${PYTHON%/*}:$PATH"
    export PYTHON PATH
}

if [ "${BASH_SOURCE[0]}" = "$0" ] && [ -z "${WESPEAKER_LAP_PYTHON:-}" ]; then
    set -euo pipefail
    if env_is_current; then exit 0; fi
    env_make
else
    env_use
fi
