"""Benchmarks of the layers against other libraries and the limits of the machine: see README.md."""
