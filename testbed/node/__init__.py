"""Nodes as Docker containers: the only package that imports the Docker SDK. Decides nothing."""
