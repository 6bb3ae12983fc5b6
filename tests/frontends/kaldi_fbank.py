"""Filter banks by Kaldi's own code."""

import kaldi_native_fbank as knf
import numpy as np


def kaldi_feats(wav, num_mels=80, sample_rate=16000):
    """(S,) in [-1, 1] -> (T, F), by Kaldi's own code."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = sample_rate
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = num_mels
    computer = knf.OnlineFbank(options)
    computer.accept_waveform(sample_rate, (wav.numpy() * 32768).tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(n) for n in range(computer.num_frames_ready)])
