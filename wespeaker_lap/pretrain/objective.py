"""What the encoder learns from, every term in one place.

For a batch of B crops, two of each recording, of T frames:

    front end           L_front = mean over frames and bands of smoothL1(front_head(x), own mel),
                        x the projected convolutions, mel of the crop as the encoder gets it: the
                        spectrum must be in what all layers are made of
    masked prediction   L_code = mean over frames and codebooks of CE(head(h_L), code)
                        L_mel  = mean over frames and bands of smoothL1(mel_head(h_L), mel)
                        where masked frames have weight 1 and frames in sight `unmasked_weight`;
                        codes and mel are of the clean crop (HuBERT; WavLM section 3.2; BEST-RQ)
    contrast            z = unit(mlp(mean and deviation over T of h_k)), k a middle layer
                        L_con = mean over crops i with a partner j, of clean pairs, of
                                -log( exp(z_i.z_j / tau) / sum_{n != i} exp(z_i.z_n / tau) )
                        other crops of the same recording are left out of the sum
                        (UniSpeech-SAT section 3.1, on utterances instead of frames)
    loss                front_weight L_front for the first `front_steps`, then
                        front_weight L_front + code_weight L_code + mel_weight L_mel
                        + contrastive.weight L_con
"""

import numpy as np
import torch
import torch.distributed.nn.functional as differentiable
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.models import Wav2Vec2Model

from wespeaker_lap.engine.dist import World
from wespeaker_lap.frontends.hidden_states import convolve, run_blocks
from wespeaker_lap.pretrain.config import PretrainConfig


class Pretraining(nn.Module):
    """The encoder with the heads that only the training needs.

    Args:
        encoder: to be trained.
        config: of the whole.
        num_codebooks, codebook_size, num_mels: C, V and M of the targets.
        world: over whose processes the contrast runs.
    """

    def __init__(self, encoder: Wav2Vec2Model, config: PretrainConfig, num_codebooks: int,
                 codebook_size: int, num_mels: int, world: World):
        super().__init__()
        dim = config.encoder.dim
        self.encoder, self.config, self.world = encoder, config, world
        self.code_shape = (num_codebooks, codebook_size)
        self.mask_vector = nn.Parameter(0.1 * torch.randn(dim))
        self.code_head = nn.Linear(dim, num_codebooks * codebook_size)
        self.mel_head = nn.Linear(dim, num_mels)
        self.front_head = nn.Linear(dim, num_mels)
        self.crop_head = nn.Sequential(nn.LayerNorm(2 * dim), nn.Linear(2 * dim, 2 * dim),
                                       nn.GELU(), nn.Linear(2 * dim, config.contrastive.dim))

    def project(self, wav: Tensor) -> Tensor:
        """The front end: (B, S) normalised -> (B, T, D)."""
        x = convolve(self.encoder, wav, [wav.shape[1]] * len(wav))  # (B, T, C)
        return self.encoder.encoder.feature_projection(x)

    def encode(self, wav: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, S) normalised, (B, T) -> front end's output (B, T, D), L hidden states (B, T, D)."""
        x, share = self.project(wav), self.config.masked.front_grad
        hidden = share * x + (1 - share) * x.detach()  # as x, with a part of its gradient
        hidden = torch.where(mask[:, :, None], self.mask_vector.to(x.dtype), hidden)
        return x, run_blocks(self.encoder, hidden, None, after_norm=True)

    def forward(self, wav: Tensor, own_mel: Tensor, mask: Tensor | None = None,
                codes: Tensor | None = None, mel: Tensor | None = None,
                utts: Tensor | None = None,
                has_pair: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """One batch of one process; with the first two arguments alone, only its front end.

        Args:
            wav: (B, S) crops as the encoder gets them, normalised; places 2i and 2i + 1 are of one
                recording.
            own_mel: (B, T, M) of these, standardised.
            mask: (B, T) true where the encoder sees the mask vector.
            codes: (B, T, C) of the clean crops.
            mel: (B, T, M) of the clean crops, standardised.
            utts: (B,) numbers of the recordings.
            has_pair: (B,) which crops are brought together with their partner.

        Returns:
            loss (), and the terms by name; each is this process's share of the batch's mean times
            the number of processes, so that their mean over the processes is that of the batch.
        """
        masked, contrastive = self.config.masked, self.config.contrastive
        front, states = (self.project(wav), []) if mask is None else self.encode(wav, mask)
        terms = {"front": F.smooth_l1_loss(self.front_head(front).float(), own_mel)}
        loss = masked.front_weight * terms["front"]
        if mask is not None:
            terms |= self._predict(states[-1], mask, codes, mel)
            terms |= self._contrast(states[contrastive.layer], utts, has_pair)
            loss = (loss + masked.code_weight * terms["code"] + masked.mel_weight * terms["mel"]
                    + contrastive.weight * terms["contrast"])
        return loss, {name: term.detach() for name, term in terms.items()}

    def _predict(self, x: Tensor, mask: Tensor, codes: Tensor, mel: Tensor) -> dict[str, Tensor]:
        config = self.config.masked
        weights = torch.where(mask, 1.0, config.unmasked_weight)  # (B, T)
        total = self._sum(weights.sum())
        logits = self.code_head(x).unflatten(-1, self.code_shape).float()  # (B, T, C, V)
        entropy = F.cross_entropy(logits.flatten(0, 2), codes.flatten(), reduction="none")
        entropy = entropy.view(codes.shape).mean(dim=-1)  # (B, T)
        error = F.smooth_l1_loss(self.mel_head(x).float(), mel, reduction="none").mean(dim=-1)
        correct = (logits.argmax(dim=-1) == codes).float().mean(dim=-1)
        share, num_masked = self.world.size / total, self._sum(mask.sum()).clamp_min(1)
        return {"code": (weights * entropy).sum() * share, "mel": (weights * error).sum() * share,
                "code_acc": (correct * mask).sum() * self.world.size / num_masked}

    def _contrast(self, x: Tensor, utts: Tensor, has_pair: Tensor) -> dict[str, Tensor]:
        x = x.float()
        pooled = torch.cat([x.mean(dim=1), x.std(dim=1)], dim=-1)  # (B, 2D)
        vectors = F.normalize(self.crop_head(pooled).float(), dim=-1)  # (B, E)
        everyone, everyones = self._gather(vectors), self._gather(utts)  # (WB, E), (WB,)
        own = torch.arange(len(utts), device=x.device) + self.world.rank * len(utts)
        logits = vectors @ everyone.T / self.config.contrastive.temperature  # (B, WB)
        partner = own ^ 1  # places 2i and 2i + 1
        left_out = utts[:, None] == everyones
        left_out[torch.arange(len(utts)), partner] = False
        logits = logits.masked_fill(left_out, float("-inf"))
        entropy = F.cross_entropy(logits, partner, reduction="none")  # (B,)
        share = self.world.size / self._sum(has_pair.sum()).clamp_min(1)
        correct = (logits.argmax(dim=-1) == partner) & has_pair
        return {"contrast": torch.where(has_pair, entropy, 0.0).sum() * share,
                "contrast_acc": correct.sum() * share}

    def _gather(self, x: Tensor) -> Tensor:
        """(B, ...) of every process, in the order of the ranks."""
        return torch.cat(differentiable.all_gather(x)) if self.world.size > 1 else x

    def _sum(self, count: Tensor) -> Tensor:
        """A count added up over all processes; no gradient."""
        count = count.detach().float()
        if self.world.size > 1:
            torch.distributed.all_reduce(count)
        return count


def draw_mask(num_frames: int, span: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Hide spans of frames: each frame begins one with the probability that hides `share` of them.

    Spans may overlap (wav2vec 2.0, Baevski et al. 2020, section 3.1); at least one is drawn.

    Args:
        num_frames: T.
        span: frames of a span.
        share: of the frames that are hidden, on average.
        rng: source of the draws.

    Returns:
        (T,) bool.
    """
    start = 1 - (1 - share) ** (1 / span)
    starts = np.flatnonzero(rng.random(num_frames) < start)
    if not len(starts):
        starts = rng.integers(num_frames, size=1)
    mask = np.zeros(num_frames + span, dtype=bool)
    for first in starts:
        mask[first:first + span] = True
    return mask[:num_frames]
