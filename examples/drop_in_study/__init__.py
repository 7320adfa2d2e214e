"""What examples/drop_in.py is made of."""
