"""What takes long: extracting features, training, embedding. Each runs on one process or many."""
