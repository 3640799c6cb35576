"""Every network of ``spaces/oracle.py`` trained on Fashion-MNIST: ``python -m benchmarks.oracle``."""
