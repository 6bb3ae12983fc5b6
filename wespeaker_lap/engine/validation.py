"""A small trial list that is watched while a network trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.data.trials import Trials
from wespeaker_lap.engine.embed import embed_store
from wespeaker_lap.engine.embed_waves import embed_waves
from wespeaker_lap.engine.material import Material
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.identity import check_compatible
from wespeaker_lap.score.cosine import cosine_scores, index_trials
from wespeaker_lap.score.metrics import eer

if TYPE_CHECKING:
    from wespeaker_lap.engine.run import Run


@dataclass(frozen=True)
class Validation:
    """Features, or recordings to compute them from as in training, and trials of them."""

    examples: FeatureStore | DataDir
    trials: Trials


def check_validation(validation: Validation | None, material: Material, is_needed: bool) -> None:
    """Refuse before the training what would end it after its first epoch, or in stage 4.

    Raises:
        ValueError: features that do not fit the training's, or recordings where it has features;
            utterances of the trials that are not there; no trials where they are needed.
    """
    if validation is None:
        if is_needed:
            raise ValueError("score.average is best: the best epochs are known by their validation "
                             "EER; give --valid_trials (a recipe's valid_set), or average the last")
        return
    examples = validation.examples
    if isinstance(examples, FeatureStore) != (material.frontend is None):
        raise ValueError("validation trials: their features go with a training on features "
                         "(--valid_feats), their recordings with one on waves (--valid_data)")
    if isinstance(examples, FeatureStore):
        check_compatible(examples.directory, examples.identity, material.identity)
        index_trials(validation.trials, list(examples))
    else:
        index_trials(validation.trials, list(examples.wavs))


def validate(run: Run) -> float | None:
    """EER in percent on the validation trials, raw cosine; None where there are none."""
    if run.validation is None:
        return None
    trials, examples = run.validation.trials, run.validation.examples
    utts = sorted({*trials.enroll, *trials.test})
    if isinstance(examples, FeatureStore):
        vectors = embed_store(run.net, examples, utts, run.world)
    else:
        vectors = embed_waves(run.net, run.material.frontend, examples, utts, run.world,
                              run.material.identity["codec"])
    enroll_index, test_index, _ = index_trials(trials, utts)
    return 100 * eer(cosine_scores(vectors, vectors, enroll_index, test_index), trials.labels)
