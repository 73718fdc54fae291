"""Benchmark of training, evaluation and prediction, with random data of the same size as the dataset."""
