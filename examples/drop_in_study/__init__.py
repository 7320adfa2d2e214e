"""The parts of examples/drop_in.py, one subject a file.

`text` reads the standard library's sources, `transformer` is the model, `training` the loop.
`worker` does one run; `results` keeps what came out, `picture` shows it. Errors, gauges, readers of
options and the process of its own that each run has are those of `microarray_study`.
"""
