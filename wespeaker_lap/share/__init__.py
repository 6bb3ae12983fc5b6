"""What a trained system gives to others: a model to call, and a page of results."""
