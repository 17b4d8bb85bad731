"""The commands of `dcodp`, one module for each group of them."""
