# The phases of a training, each of them stages of egs/sv.sh, which sources this file:
#
#   frozen          stages 1-8: the encoder as it is, as a rule from stored features
#   joint           3-8 again, in exp/<name>-joint: encoder and back end together, from the first
#   large_margin    3-8 again, in exp/<name>-lm: longer crops, a larger margin, from the joint one
#
# --phase all does one after the other; --stop_stage 9 is the same. --stage and --stop_stage choose
# the stages of every phase, and --stage 9 begins with the joint one. The same command again goes on
# where it stopped.
# shellcheck shell=bash disable=SC2034,SC2154  # the options of a recipe are set and read elsewhere

phase=frozen # or joint, large_margin, all
joint_config='' lm_config= # of the later phases, else conf/<name>_joint.yaml, conf/<name>_lm.yaml
frozen_overrides='' joint_overrides='' lm_overrides= # changes to a single phase's configuration
tune_set= # training set of the later phases, without voices at other speeds; else $train_set

# run_phases: run_phase for every phase that is asked for.
run_phases() {
    local FOLDERS NAMES=("$phase") NAME
    [[ "$phase" =~ ^(frozen|joint|large_margin|all)$ ]] ||
        die "--phase wants frozen, joint, large_margin or all, got '$phase'"
    check_stages
    ((stage <= 9 && stop_stage <= 9)) || die "there are stages 0 to 9," \
        "got --stage $stage and --stop_stage $stop_stage"
    ((stage <= stop_stage || stage == 9)) ||
        die "--stage $stage comes after --stop_stage $stop_stage, so nothing would be run"
    [ "$phase" != frozen ] || ((stage < 9 && stop_stage < 9)) || phase=all
    [ "$phase" != all ] || NAMES=(frozen joint large_margin)
    [ "$phase" != all ] || ((stop_stage != 3)) ||
        die "--phase all: a phase begins with the average of the one before, which stage 4 makes;" \
            "give --stop_stage 4 or more"
    # Data and stored features are the first phase's; it has no stage 9.
    [ "$phase" != all ] || ((stage < 9)) || NAMES=(joint large_margin)
    [ "$phase" != all ] || ((stop_stage > 3)) || NAMES=(frozen)
    FOLDERS=("$(phase_folder '')" "$(phase_folder -joint)" "$(phase_folder -lm)")
    for NAME in "${NAMES[@]}"; do in_phase "$NAME" check_phase; done
    for NAME in "${NAMES[@]}"; do in_phase "$NAME" run_phase; done
    if [ "$phase" = all ] && ((stop_stage >= 8)); then
        lap join-reports "${FOLDERS[@]}" --out "$(phase_folder -phases)/RESULTS.md"
        log "all phases: $(phase_folder -phases)/RESULTS.md"
    fi
}

# phase_folder SUFFIX: a folder beside the first phase's: exp/lap-seed1, exp/lap-joint-seed1.
phase_folder() {
    local TAIL="${seed:+-seed$seed}" FOLDER
    FOLDER="${exp_dir:-exp/$(basename "$config" .yaml)$TAIL}"
    [[ "$FOLDER" == *"$TAIL" ]] || TAIL=
    printf '%s\n' "${FOLDER%"$TAIL"}$1$TAIL"
}

# in_phase NAME COMMAND: runs it with the options of a phase.
in_phase() {
    local config="$config" exp_dir="$exp_dir" init="$init" train_set="$train_set"
    local stage="$stage" stop_stage="$stop_stage" overrides="$overrides" feats_dir="$feats_dir"
    local cohort_set="$cohort_set" calib_set="$calib_set"
    local AFTER='' TUNED=()  # folder of the phase before; settings that name its encoder
    case "$1" in
        frozen) exp_dir="${FOLDERS[0]}" overrides+=" $frozen_overrides" ;;
        joint)
            config="${joint_config:-${config%.yaml}_joint.yaml}" overrides+=" $joint_overrides"
            AFTER="${FOLDERS[0]}" exp_dir="${FOLDERS[1]}"
            ;;
        large_margin)
            config="${lm_config:-${config%.yaml}_lm.yaml}" overrides+=" $lm_overrides"
            AFTER="${FOLDERS[1]}" exp_dir="${FOLDERS[2]}"
            ;;
    esac
    if [ -n "$AFTER" ]; then
        train_set="${tune_set:-$train_set}"
        ((3 <= stage && stage <= 8)) || stage=3
        # What --init names stands for the phase before; with all, for what comes before the first.
        [ "$phase" = all ] || AFTER="${init:-$AFTER}"
        init="$AFTER"
        # The large margin goes on with the encoder that was tuned.
        [ "$1" = joint ] || [[ -d "$init" && ! -d "$init/encoder" ]] ||
            TUNED=("frontend.name=$init/encoder" "frontend.bundle=null")
    fi
    "$2" "$1"
}

# check_phase NAME: a mistake in a later phase is told before the first one begins.
check_phase() {
    local SETTINGS=() AUGMENT ITEM TABLE
    [ -n "$AFTER" ] || return 0
    [ -f "$config" ] || die "--phase $phase: there is no $config; write it, or name another with" \
        "--joint_config or --lm_config"
    for ITEM in $overrides; do SETTINGS+=(--set "$ITEM"); done
    AUGMENT="$("$PYTHON" -m wespeaker_lap show-config --config "$config" \
        ${SETTINGS[@]+"${SETTINGS[@]}"} --get data.augment)"
    for ITEM in noise:noise_scp reverb:rir_scp; do
        TABLE="${ITEM#*:}" ITEM="${ITEM%:*}"
        [[ -n "${!TABLE}" || "$AUGMENT" != *"'$ITEM': "* || "$AUGMENT" == *"'$ITEM': 0.0,"* ]] ||
            die "$config augments with $ITEM: give --$TABLE, or set data.augment.$ITEM=0 or" \
                "data.augment=null in --overrides"
    done
}

# is_done_before: whether --phase all finds a phase packed, with the training that it has now.
is_done_before() {
    [ "$phase" = all ] && ((stage <= 3 && 8 <= stop_stage)) || return 1
    [ "$exp_dir/bundle/manifest.json" -nt "$exp_dir/models/last.pt" ] || return 1
    log "stages 4-8 of $exp_dir are done: bundle/ is there; --stage 4 does them again"
}
