"""Every network of ``spaces/oracle.py`` trained on Fashion-MNIST made harder: ``python -m benchmarks.oracle``."""
