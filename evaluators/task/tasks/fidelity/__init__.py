"""Tasks that judge a network by the uncompressed one."""
