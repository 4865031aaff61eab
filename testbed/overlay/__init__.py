"""How packets cross the underlay: one file per encapsulation. Pure."""
