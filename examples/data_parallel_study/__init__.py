"""The parts of `data_parallel.py`."""
