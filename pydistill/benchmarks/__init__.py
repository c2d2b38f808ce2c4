"""Benchmarks of every operator and of whole training steps, each beside its peers: ``pydistill bench``."""
