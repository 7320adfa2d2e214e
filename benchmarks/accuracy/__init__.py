"""How accurate the estimators are on wide data, beside the classic ways: `benchmarks.accuracy`."""
