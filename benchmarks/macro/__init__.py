"""Searches with a supernet on CIFAR-10, judged by NAS-Bench-Macro's trained networks: ``python -m benchmarks.macro``."""
