"""The parts of examples/million_neurons.py, one subject a file."""
