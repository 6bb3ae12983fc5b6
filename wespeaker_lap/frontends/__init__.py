"""Waveforms to features: frozen pre-trained encoders."""
