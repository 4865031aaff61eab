"""The vocabulary of what a node should hold, and its rendering to native batch files. Pure."""
