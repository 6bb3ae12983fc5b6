"""Utterances to samples to batches: data directories, trial lists, sources and samplers."""
