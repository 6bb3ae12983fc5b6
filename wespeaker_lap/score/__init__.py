"""Embeddings to scores, scores to error rates. numpy only."""
