"""How close a network's outputs stay to the uncompressed network's, which are the labels."""
