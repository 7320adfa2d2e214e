"""What hostile inputs and sudden deaths do to the library: `python -m benchmarks.reliability`."""
