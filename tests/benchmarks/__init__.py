"""The numbers that testbed promises: ``make bench``."""
