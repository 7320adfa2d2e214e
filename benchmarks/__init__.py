"""How fast the layers are, against other libraries and against the machine: see README.md."""
