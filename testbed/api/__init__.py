"""Testbeds, nodes, pods and captures as Python objects, for tests and scripts."""
