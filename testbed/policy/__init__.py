"""What may talk to whom, as rules: one file per engine. Pure."""
