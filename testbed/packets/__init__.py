"""Captured packets as values: decoding, capture files, and selections that tests assert on."""
