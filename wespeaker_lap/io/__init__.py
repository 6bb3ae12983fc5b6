"""Files to numpy and back. Nothing here imports torch."""
