"""The parts of examples/drop_in.py, one subject a file.

`text` reads the standard library's sources, `transformer` is the model, `training` the loop.
`worker` does one run in a process of its own; `results` keeps what came out, `picture` shows it.
Errors, gauges and readers of options are those of `microarray_study`.
"""
