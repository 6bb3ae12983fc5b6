#!/usr/bin/env bash
# The words a recipe is written in; egs/sv.sh sources this file:
#
#   stage=1                       declare each option with its default, in lower case, and
#   stop_stage=8                  anything that is not an option in UPPER case
#   parse_options "$@"            then read --name value
#   if stage 3 "train"; then launch "$nproc" train --config "$config"; fi
#
# Expects $PYTHON (tools/env.sh), and reads the options stage, stop_stage, dry_run, num_nodes and
# rdzv_endpoint where the recipe declares them; prepare and each_trials read those of egs/sv.sh.

set -euo pipefail

STAGE_NOW="" # "stage N (title)" once one has begun, for the message when a command fails
STAGE_START=0 # when it began, in seconds of this shell

# log MESSAGE…: one line with the time, on standard error.
log() { printf '%s %s\n' "$(date '+%F %T')" "$*" >&2; }

# die MESSAGE…: logs the error and ends the recipe.
die() {
    log "error: $*"
    exit 1
}

# known_options: the variables in lower case that are set by now and do not come from outside.
known_options() {
    comm -23 <(compgen -v | LC_ALL=C sort -u) <(compgen -e | LC_ALL=C sort -u) |
        grep -E '^[a-z][a-z0-9_]*$'
}

# show_help: the comment header of each script from the recipe's own inwards, then the options.
show_help() {
    local FILE NAME INDEX
    for ((INDEX = ${#BASH_SOURCE[@]} - 1; INDEX > 0; INDEX--)); do
        NAME="${BASH_SOURCE[INDEX]}"
        [ "$NAME" != "${BASH_SOURCE[0]}" ] || continue
        # A script that has changed the folder no longer finds itself by the name it was called by.
        for FILE in "$NAME" "${OLDPWD:-.}/$NAME" "./${NAME##*/}" /dev/null; do
            [ ! -r "$FILE" ] || break
        done
        awk '/^#!/ || /^# shellcheck/ { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$FILE"
        echo
    done
    echo "Options and their defaults:"
    known_options | while IFS= read -r NAME; do printf '  --%s %q\n' "$NAME" "${!NAME-}"; done
}

# parse_options "$@": --name value or --name=value, - and _ the same; sets the variable `name`.
# Only an option declared before is accepted; --help prints show_help and ends the recipe.
parse_options() {
    local KNOWN GIVEN NAME VALUE
    KNOWN="$(known_options)"
    while [ $# -gt 0 ]; do
        GIVEN="$1"
        shift
        case "$GIVEN" in
            --help | -h)
                show_help
                exit 0
                ;;
            --*=*)
                VALUE="${GIVEN#*=}"
                GIVEN="${GIVEN%%=*}"
                ;;
            --?*)
                if [ $# -eq 0 ] || [[ "$1" == --* ]]; then
                    die "$GIVEN needs a value (write $GIVEN=VALUE if it begins with --)"
                fi
                VALUE="$1"
                shift
                ;;
            *) die "unexpected argument '$GIVEN': options are written --name value" ;;
        esac
        NAME="${GIVEN#--}"
        NAME="${NAME//-/_}"
        grep -qxF -- "$NAME" <<<"$KNOWN" ||
            die "unknown option $GIVEN (or a variable of the environment); known are:" \
                "${KNOWN//$'\n'/, }"
        if [[ "${!NAME-}" =~ ^(true|false)$ && ! "$VALUE" =~ ^(true|false)$ ]]; then
            die "$GIVEN wants true or false, got '$VALUE'"
        fi
        printf -v "$NAME" '%s' "$VALUE"
    done
}

# check_stages: ends the recipe where --stage or --stop_stage is no number.
check_stages() {
    local NAME
    for NAME in stage stop_stage; do
        [[ "${!NAME}" =~ ^(0|[1-9][0-9]*)$ ]] || die "--$NAME wants a number, got '${!NAME}'"
    done
}

# stage N TITLE: whether stage N is asked for ($stage..$stop_stage); logs it if so.
stage() {
    check_stages
    # shellcheck disable=SC2154  # the recipe's options
    ((stage <= $1 && $1 <= stop_stage)) || return 1
    finish_stage
    STAGE_NOW="stage $1 ($2)" STAGE_START=$SECONDS
    log "stage $1: $2"
}

# finish_stage: says how long the stage that has begun took.
finish_stage() {
    [ -z "$STAGE_NOW" ] || log "$STAGE_NOW took $((SECONDS - STAGE_START)) s"
    STAGE_NOW=""
}

# run CMD…: runs a program; with dry_run=true prints it instead, quoted for a shell. If it fails,
# says which one, in which stage, and ends the recipe with its exit code.
run() {
    local code=0
    if [ "${dry_run:-false}" = true ]; then
        printf '%q ' "$@" | sed 's/ $//'
        echo
        return
    fi
    "$@" || code=$?
    [ "$code" -eq 0 ] && return
    log "error: ${STAGE_NOW:-the recipe} failed with exit code $code (in $PWD):$(printf ' %q' "$@")"
    exit "$code"
}

# check_count NAME VALUE: ends the recipe where the option is no number of processes or machines.
check_count() {
    [[ "$2" =~ ^[1-9][0-9]*$ ]] || die "--$1 wants a number from 1 on, got '$2'"
}

# count_cores: of this machine; OMP_NUM_THREADS, which nproc would obey, is of a single process.
count_cores() {
    env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN
}

# launch NPROC VERB ARGS…: `wespeaker-lap VERB ARGS…` in NPROC processes on each of num_nodes
# machines. OMP_NUM_THREADS, unless it is set, shares the cores among the processes.
launch() {
    local nproc="$1" nodes="${num_nodes:-1}" cores command=("$PYTHON")
    shift
    check_count nproc "$nproc"
    check_count num_nodes "$nodes"
    if [ "$nodes" -gt 1 ]; then
        [ -n "${rdzv_endpoint:-}" ] ||
            die "--num_nodes $nodes needs --rdzv_endpoint HOST:PORT, the same on every machine"
        command+=(-m torch.distributed.run --nnodes "$nodes" --nproc_per_node "$nproc"
            --rdzv_backend c10d --rdzv_endpoint "$rdzv_endpoint")
    elif [ "$nproc" -gt 1 ]; then
        command+=(-m torch.distributed.run --standalone --nproc_per_node "$nproc")
    fi
    if [ -z "${OMP_NUM_THREADS:-}" ]; then
        cores="$(count_cores)"
        # Threads that wait must sleep: the processes that read data need the cores.
        command=(env "OMP_NUM_THREADS=$((cores > nproc ? cores / nproc : 1))"
            "OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}" "${command[@]}")
    fi
    run "${command[@]}" -m wespeaker_lap "$@"
}

# lap VERB ARGS…: one process, all cores.
lap() { run "$PYTHON" -m wespeaker_lap "$@"; }

# shellcheck disable=SC2154  # the options of egs/sv.sh
# each_trials VERB OPTION…: lap VERB for every chosen trial list; all must be there first.
each_trials() {
    local SET NAME LIST LISTS=() CHOSEN=()
    for SET in $test_sets; do LISTS+=("$data/$SET"/trials/*.kaldi); done # '*' where there are none
    for NAME in $trials; do
        [[ "$dry_run" = true || " ${LISTS[*]##*/} " == *" $NAME.kaldi "* ]] ||
            die "no list called '$NAME' in $data/<set>/trials of the test sets ($test_sets)"
    done
    for LIST in "${LISTS[@]}"; do
        NAME="$(basename "$LIST" .kaldi)"
        [[ -n "$trials" && " $trials " != *" $NAME "* && "$NAME" != '*' ]] || CHOSEN+=("$LIST")
    done
    NAME="$(printf '%s\n' ${CHOSEN[@]+"${CHOSEN[@]##*/}"} | sed '/^\*/d' | sort | uniq -d)"
    [ -z "$NAME" ] || die "test sets with lists of one name, after which scores are named:" \
        "${NAME//$'\n'/, }; rename all but one, or choose others with --trials"
    for LIST in ${CHOSEN[@]+"${CHOSEN[@]}"}; do
        lap "$1" "$exp_dir" "${LIST%/trials/*}" --trials "$LIST" --missing "$missing" "${@:2}"
    done
}

# shellcheck disable=SC2086,SC2154
# check_trained: ends the recipe where it begins after the training, and --overrides name other values
# than the training's, which all later stages read.
check_trained() {
    local ITEM KEYS=() OWN TRAINED
    for ITEM in $overrides; do KEYS+=(--get "${ITEM%%=*}"); done
    [[ "$stage" -ge 4 && ${#KEYS[@]} -gt 0 && -f "$exp_dir/config.yaml" ]] || return 0
    OWN="$("$PYTHON" -m wespeaker_lap show-config "${CONFIG[@]}" "${KEYS[@]}")"
    TRAINED="$("$PYTHON" -m wespeaker_lap show-config --config "$exp_dir/config.yaml" \
        "${KEYS[@]}" 2>/dev/null)" || TRAINED= # a section that it does not have
    [ "$OWN" = "$TRAINED" ] ||
        die "stage 3 has written other values than" $overrides "to $exp_dir/config.yaml, which" \
            "the stages after it read; begin with --stage 3 (it trains nothing anew where only" \
            "score.* changes), or give --top_n or --num_avg"
}

# shellcheck disable=SC2154
# prepare DOWNLOAD: the recipe's own script with the recipe's own options.
prepare() {
    local ARGS=(--data "$data" --nj "$nj" --download "$1") NAME
    for NAME in ${PREPARE_OPTIONS[@]+"${PREPARE_OPTIONS[@]}"}; do
        [ -z "${!NAME}" ] || ARGS+=("--$NAME" "${!NAME}")
    done
    run "$PYTHON" local/prepare_data.py "${ARGS[@]}"
}

# select_gpus LIST: makes "[0,1]", "0,1" or "0 1" the visible GPUs and sets num_gpus to their
# number. An empty list leaves the machine's own choice and num_gpus=0.
select_gpus() {
    local id list="${1//[\[\],]/ }" ids=()
    read -r -a ids <<<"$list" || true
    num_gpus=${#ids[@]}
    [ "$num_gpus" -gt 0 ] || return 0
    for id in "${ids[@]}"; do
        [[ "$id" =~ ^([0-9]+|GPU-[0-9a-f-]+|MIG-[0-9a-f-]+)$ ]] ||
            die "--gpus wants numbers such as \"[0,1]\" or \"0 1\", got '$1'"
    done
    [ -z "$(printf '%s\n' "${ids[@]}" | sort | uniq -d)" ] || die "--gpus names one twice: '$1'"
    CUDA_VISIBLE_DEVICES="$(IFS=, && printf '%s' "${ids[*]}")"
    export CUDA_VISIBLE_DEVICES
}

# shellcheck disable=SC2154
# count_extractors: processes of stage 2: one a GPU of --gpus; without it one where --device is a
# GPU, or is auto and finds one; nj on the CPU.
count_extractors() {
    if [ "$num_gpus" -gt 0 ]; then
        echo "$nproc"
    elif [ "$device" = cpu ] || { [ "$device" = auto ] && ! finds_gpu; }; then
        echo "$nj"
    else
        echo 1
    fi
}

# finds_gpu: whether --device auto is a GPU. Where there is no driver, torch need not be asked.
finds_gpu() {
    command -v nvidia-smi >/dev/null || command -v rocm-smi >/dev/null ||
        [ "$(uname)" = Darwin ] || return 1
    "$PYTHON" -c 'from wespeaker_lap.engine.dist import choose_device
raise SystemExit(choose_device("auto").type == "cpu")' >&2
}
