"""What the interactive figures know from dsnotes: one module, one figure, one `data()`."""
