"""What the user asked for: the frozen model, loading, address planning and scheduling. Pure."""
