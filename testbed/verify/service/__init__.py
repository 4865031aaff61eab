"""What a node's kernel does with packets to one Service, read from its live rules."""
