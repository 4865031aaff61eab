"""BGP speakers: BIRD's configuration, and the routers between networks. Pure."""
