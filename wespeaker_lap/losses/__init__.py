"""Training losses: embeddings and speaker labels to a scalar."""
