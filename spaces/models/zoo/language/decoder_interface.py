"""Inputs and outputs of an exported decoder with a key-value cache."""

INPUTS = ("ids", "positions", "past_keys", "past_values")
OUTPUTS = ("logits", "keys", "values")
