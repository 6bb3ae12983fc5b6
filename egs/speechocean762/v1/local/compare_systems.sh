#!/usr/bin/env bash
# The comparisons of RESULTS.md: trains every system three times and says which differ.
#
#   bash local/compare_systems.sh [--tables "layers backends"] [--seeds "1 2 3"] [--dry_run true]
#
# Stages 1 and 2 of run.sh come first, for conf/lap.yaml and for conf/fbank_lap.yaml. Half the epochs
# of the configurations, so that all of it takes a night on two cores. What is there already is not
# done again; tables are in exp/compare/<table>.md.
# shellcheck disable=SC1091  # it is checked from another folder than it runs in
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. ../../../tools/recipe.sh

tables="layers backends distill_xvector distill_resnet34 distill_reasons speakers contrast"
seeds="1 2 3"
dry_run=false
parse_options "$@"
. ../../../tools/env.sh

HALF="train.epochs=8 loss.schedule.end_epoch=4"
NARROW="model.frame_net.channels=8" # a ResNet34 that a CPU trains in a quarter of an hour
QUICK="$NARROW train.batch_size=32 train.crop_seconds=1 train.lr=3e-3 score.num_avg=3"
QUICK+=" train.epochs=16 loss.schedule.end_epoch=8"

# train NAME CONFIG OVERRIDES [OPTION…]: for every seed, unless it is scored.
train() {
    local SEED OPTIONS EXP
    for SEED in $seeds; do
        EXP="exp/compare/$1-seed$SEED"
        ! compgen -G "$EXP/scores/*_asnorm50_test.json" > /dev/null || continue
        OPTIONS="${*:4}"
        # shellcheck disable=SC2086  # options are words
        run bash run.sh --stage 3 --stop_stage 6 --config "conf/$2.yaml" --seed "$SEED" \
            --exp_dir "$EXP" --overrides "$HALF ${3//@/$SEED}" ${OPTIONS//@/$SEED}
    done
}

# table NAME FIRST SYSTEM…: how the systems differ from the first one.
table() {
    local SYSTEM SEED EXPS=()
    for SYSTEM in "${@:2}"; do
        for SEED in $seeds; do EXPS+=("exp/compare/$SYSTEM-seed$SEED"); done
    done
    run "$PYTHON" -m wespeaker_lap compare "${EXPS[@]}" --data data/test \
        --out "exp/compare/$1.md"
}

layers() {
    local LAYER
    for LAYER in 0 1 2 3 4 5 6; do train "single$LAYER" single "model.layer_pool.layer=$LAYER"; done
    for SYSTEM in lap weighted_sum lap_mean unipool; do train "$SYSTEM" "$SYSTEM" ""; done
    table layers weighted_sum single{0,1,2,3,4,5,6} lap lap_mean unipool
}

backends() {
    train lap lap ""
    for SYSTEM in lap_xvector lap_ecapa lap_mhfa fbank_xvector fbank_ecapa; do
        train "$SYSTEM" "$SYSTEM" ""
    done
    train fbank_resnet34 fbank_resnet34 "$NARROW"
    table backends lap lap_xvector lap_ecapa lap_mhfa fbank_xvector fbank_ecapa fbank_resnet34
}

# distill STUDENT ALONE WARM_UP OVERRIDES [OPTION…]: all ways to learn from the LAP of the same seed,
# over so many epochs of warm-up, and the student by itself, whose name is ALONE.
distill() {
    local NET="$1" ALONE="$2" TEACHER="distill.teacher=exp/compare/lap-seed@" LOSS KIND
    train lap lap ""
    train "$ALONE" "fbank_$NET" "$4" "${@:5}"
    for KIND in embedding label enskd1 enskd2 enskd4; do
        LOSS="distill.name=${KIND/enskd/non_target distill.gamma=} distill.warm_up_epochs=$3"
        train "${NET}_$KIND" "fbank_$NET" "$4 $LOSS $TEACHER" "${@:5}"
    done
    table "distill_$NET" "$ALONE" "$NET"_{embedding,label,enskd1,enskd2,enskd4} lap
}

distill_xvector() { distill xvector fbank_xvector 2 ""; }

# Smaller crops and batches at a higher rate, and no speed copies: six minutes a student, not twenty.
distill_resnet34() {
    distill resnet34 resnet34_alone 4 "$QUICK" --train_set train
}

# Why it may not help: what the teacher hears, and how long the student is trained.
distill_reasons() {
    local LONG="$QUICK train.epochs=32 loss.schedule.end_epoch=16"
    local TEACHER="distill.teacher=exp/compare/lap-seed@" LOSS="distill.name=non_target distill.gamma=2"
    local CROPS="$TEACHER distill.feats=feats/wavlm_tiny/train distill.warm_up_epochs=4"
    train lap lap ""
    train resnet34_alone fbank_resnet34 "$QUICK" --train_set train
    train resnet34_label_crops fbank_resnet34 "$QUICK distill.name=label $CROPS" --train_set train
    train resnet34_enskd2_crops fbank_resnet34 "$QUICK $LOSS $CROPS" --train_set train
    train resnet34_long fbank_resnet34 "$LONG" --train_set train
    train resnet34_long_enskd2 fbank_resnet34 "$LONG $LOSS $TEACHER distill.warm_up_epochs=8" \
        --train_set train
    table distill_crops resnet34_alone resnet34_label_crops resnet34_enskd2_crops
    table distill_long resnet34_long resnet34_long_enskd2
}

# A quarter of the training hours, of 28, 56 or all 112 speakers; as many steps as with all hours.
# The cohort is what a system was trained on: `train` would be strangers to it, and help.
speakers() {
    local NUM SEED SET
    for NUM in 28 56 112; do
        for SEED in $seeds; do
            SET="n${NUM}_s$SEED"
            [ -f "data/$SET/utt2dur" ] || {
                run "$PYTHON" local/draw_speakers.py --data data/train --copies data/train_sp \
                    --num_speakers "$NUM" --num_utts $((560 / NUM)) --seed "$SEED" --out "data/$SET"
                run "$PYTHON" -m wespeaker_lap audit-data "data/$SET"
            }
        done
        train "n$NUM" lap "train.epochs=32 loss.schedule.end_epoch=16" \
            --stage 2 --train_set "n${NUM}_s@" --cohort_set "n${NUM}_s@"
    done
    train lap lap ""
    table speakers n112 n56 n28 lap
}

# contrast_of NET OVERRIDES [OPTION…]: as it is, with batches of P x K, with MFCon, and with both.
contrast_of() {
    local NET="$1" PAIRS="train.utts_per_speaker=4" LOSS="contrastive.weight=0.05"
    train "fbank_$NET" "fbank_$NET" "$2" "${@:3}"
    train "${NET}_pairs" "fbank_$NET" "$2 $PAIRS" "${@:3}"
    train "${NET}_mfcon" "fbank_$NET" "$2 $LOSS" "${@:3}"
    train "${NET}_mfcon_pairs" "fbank_$NET" "$2 $LOSS $PAIRS" "${@:3}"
    table "contrast_$NET" "fbank_$NET" "$NET"_{pairs,mfcon,mfcon_pairs}
}

contrast() {
    contrast_of ecapa ""
    # Without speed copies: with them a Conformer takes three times as long.
    contrast_of mfa_conformer "train.epochs=12 loss.schedule.end_epoch=6" --train_set train
}

for TABLE in $tables; do
    log "table: $TABLE"
    "$TABLE"
done
