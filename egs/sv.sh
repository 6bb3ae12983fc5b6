# The stages of every speaker verification recipe, and their options. A recipe's run.sh sources this
# file, sets what is its own, and calls `run_stages "$@"`.
#
#   1 prepare the data     2 layer features     3 train     4 embeddings     5 cosine scores
#   6 AS-norm              7 calibration        8 report and pack           (0: download, if asked)
#   9 fine-tuning: 3-8 again with the encoder trained too, and again with a large margin (--phase
#     joint or large_margin does one of them alone, --phase all everything; see tools/phases.sh)
# A stage goes on where it stopped: after an error, run the same command again.
# shellcheck shell=bash disable=SC2086  # $test_sets and $pack_options are lists

TOOLS="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../tools" && pwd -P)"
. "$TOOLS/recipe.sh"
. "$TOOLS/phases.sh"

stage=1 stop_stage=8 dry_run=false # from this to that one; only print what it runs and needs
config=conf/lap.yaml overrides='' # changes to it, such as "train.epochs=5 score.top_n=100"
data=data           # data directories are in $data/<set>; all paths: from the recipe's folder
feats_dir='' exp_dir= # layer features, all of this training; else feats/<encoder>, exp/<config>
seed='' init=       # of the training; trained model to begin with: its exp_dir, or a file
train_set=train valid_set=valid # the second is watched while training; none where empty
test_sets="test" cohort_set='' calib_set= # for AS-norm, else $train_set; for stage 7, else that
noise_scp='' rir_scp= # wav.scp of noises and responses, for features.copies or data.augment
make_trials=true    # whether stage 1 makes trial lists, where the recipe has brought none
trials='' missing=error # names of lists, or all; trials without an embedding: error or skip
nj='' nproc=        # processes on the CPU, else one a core; for training, else one a GPU, or 1
device=auto gpus=   # auto, cpu, cuda, mps; which of the GPUs: "[0,1]" or "0 1"
num_nodes=1 rdzv_endpoint= # machines, and HOST:PORT, the same on all of them
num_avg='' checkpoint=avg_model # epochs to average, else as configured; weights to embed with
score_norm_method=asnorm top_n= # or snorm; cohort speakers in AS-norm, else the configuration's
min_seconds=0.1 max_reject_share=0.05 # shorter recordings are rejected, up to this share of all
PREPARE_OPTIONS=() pack_options= # a recipe's, for its local/prepare_data.py; "--with_encoder"

run_stages() {
    parse_options "$@"
    . "$TOOLS/env.sh"
    run_phases
}

# run_phase NAME: the stages of a phase, with its options; in_phase has set them.
run_phase() {
    local CONFIG=(--config "$config") ITEM SET FACTS ROLE=()
    for ITEM in $overrides ${seed:+"seed=$seed"} ${TUNED[@]+"${TUNED[@]}"}; do
        CONFIG+=(--set "$ITEM")
    done
    # A mistake in the configuration ends the recipe here.
    ITEM="$("$PYTHON" -m wespeaker_lap show-config "${CONFIG[@]}" \
        --get frontend.name --get data.source)"; mapfile -t FACTS <<<"$ITEM"
    check_trained
    select_gpus "$gpus"
    : "${nj:=$(count_cores)}" "${cohort_set:=$train_set}"
    : "${nproc:=$((num_gpus > 0 ? num_gpus : 1))}" "${feats_dir:=feats/$(basename "${FACTS[0]}")}"
    : "${calib_set:=$cohort_set}"; check_count nj "$nj"
    local NORM=(--cohort "$data/$cohort_set" ${top_n:+--top_n "$top_n"})
    local EXTRACTORS SETS ALL STORED VALID=()
    local TABLES=(--training ${noise_scp:+--noise_scp "$noise_scp"} ${rir_scp:+--rir_scp "$rir_scp"})
    local TRAINING=(--feats "$feats_dir/$train_set" ${init:+--init "$init"})
    local AUDIT=(--min_seconds "$min_seconds" --max_reject_share "$max_reject_share")
    mapfile -t SETS < <(printf '%s\n' $train_set $cohort_set $test_sets | awk '!seen[$0]++')
    ALL=("${SETS[@]}" ${valid_set:+"$valid_set"}) STORED="${ALL[*]}"
    [ -z "$valid_set" ] || VALID=(--valid_feats "$feats_dir/$valid_set"
        --valid_trials "$data/$valid_set/trials/$valid_set.kaldi")
    # From waves, features are computed where they are needed: in stages 3, 4 and 7.
    [ "${FACTS[1]}" != wave ] || { STORED='' TRAINING=("${TRAINING[@]:2}" "${TABLES[@]:1}")
        VALID=(${valid_set:+--valid_data "$data/$valid_set" "${VALID[@]:2}"}); }
    [ "$dry_run" = false ] || echo "# phase $1: $exp_dir"
    [[ "$dry_run" = false || -n "$AFTER" ]] || dry_run=false lap plan "${ALL[@]/#/$data/}" \
        --device "$device" --nproc "$nproc" --training "$data/$train_set" "${CONFIG[@]}" |
        sed 's/^/# /'

    if stage 0 "download"; then prepare true; fi
    if stage 1 "prepare the data"; then
        prepare false
        for SET in $(printf '%s\n' "${ALL[@]}" $tune_set | awk '!seen[$0]++'); do
            lap audit-data "$data/$SET" --nj "$nj" "${AUDIT[@]}"
        done
        for SET in $test_sets $valid_set; do [ "$make_trials" = true ] || continue
            [ -n "$(find "$data/$SET/trials" -name '*.kaldi' ! -name "$SET.kaldi" 2>/dev/null)" ] ||
                lap make-trials "$data/$SET" --out "$data/$SET/trials/$SET.kaldi"
        done
    fi
    if stage 2 "layer features"; then
        EXTRACTORS="$(count_extractors)"
        for SET in $STORED; do ROLE=(); [ "$SET" != "$train_set" ] || ROLE=("${TABLES[@]}")
            launch "$EXTRACTORS" extract-feats "$data/$SET" --out "$feats_dir/$SET" \
                "${CONFIG[@]}" ${ROLE[@]+"${ROLE[@]}"} --device "$device"
        done
    fi
    if stage 3 "train"; then
        launch "$nproc" train --data "$data/$train_set" ${TRAINING[@]+"${TRAINING[@]}"} \
            --exp_dir "$exp_dir" "${CONFIG[@]}" ${VALID[@]+"${VALID[@]}"} --device "$device"
    fi
    ! is_done_before || stop_stage=3
    if stage 4 "embeddings"; then
        lap average-model "$exp_dir" ${num_avg:+--num_avg "$num_avg"} --device "$device"
        for SET in "${SETS[@]}"; do
            launch "$nproc" extract-embeddings "$exp_dir" "$data/$SET" --checkpoint "$checkpoint" \
                ${STORED:+--feats "$feats_dir/$SET"} --device "$device"
        done
    fi
    if stage 5 "cosine scores"; then each_trials score; fi
    if stage 6 "AS-norm"; then each_trials norm-scores "${NORM[@]}" --method "$score_norm_method"; fi
    if stage 7 "calibration"; then
        launch "$nproc" train-calibration "$exp_dir" "$data/$calib_set" --device "$device" \
            ${STORED:+--feats "$feats_dir/$calib_set"} --checkpoint "$checkpoint" "${NORM[@]}"
        each_trials calibrate-scores "${NORM[@]}"; fi
    if stage 8 "report and pack"; then lap report "$exp_dir" "${ALL[@]/#/--data=$data/}"
        if [ "$checkpoint" = avg_model ]; then
            lap pack "$exp_dir" --out "$exp_dir/bundle" --device "$device" $pack_options
        else log "not packed: a packed model has the averaged weights, not $checkpoint"; fi; fi
    finish_stage && log "done: $exp_dir"
}
