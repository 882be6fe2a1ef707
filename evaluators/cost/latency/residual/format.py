"""What the file of a residual says of itself."""

FORMAT = "paredown_residual"
VERSION = 1
