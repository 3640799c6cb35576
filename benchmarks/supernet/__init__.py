"""Step time, memory and compilation of the supernet, beside PyTorch and idiomatic Flax."""
