"""The command line: argument parsing, exit codes, and all output."""
