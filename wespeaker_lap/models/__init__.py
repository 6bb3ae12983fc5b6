"""Tensors to tensors: the layer poolings, the poolings over time and the speaker network."""
