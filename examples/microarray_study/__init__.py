"""The parts of examples/microarray.py, one subject a file.

Data comes in through `readers` (files) and `generated` (made up), is checked by `data_set` (with
`labels`) and cut by `splits`. `networks` builds the three networks, `training` trains one,
`two_phase` is the classic way. `fresh_process` runs each training in a process of its own
(`worker`), where `measuring` watches it. `results` keeps what came out, in a `results_file`;
`table` and `picture` show it.
"""
