"""Proving that the network does what it must: expectation, probes, packets, report."""
