"""Reads tables of samples as people have them; one file a family of formats.

`entry` chooses the reader by the ending and the first bytes of a file. `text` (with `layout` and
`cells`) reads delimited text, `genes_in_rows` reads text with a gene a line, `gct`,
`series_matrix` and `arff` read the text formats of these names, `matlab` and `matlab_hdf5` read
MATLAB files, `npz`, `parquet` and `h5ad` the formats of these names. `columns` decides which column
of a table is what, `arrays` which array of a file is what. `missing` fills in or leaves out what a
table lacks. What every reader returns is a `RawTable` (`raw_table`).
"""

from microarray_study.readers.entry import read, read_samples
from microarray_study.readers.reading import Reading

__all__ = ["Reading", "read", "read_samples"]
