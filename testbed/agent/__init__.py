"""What runs inside a node: PID 1, pod sandboxes, CNI runtime, probes. Standard library only.

Imports nothing else of testbed: the image holds a copy of this package alone.
"""
