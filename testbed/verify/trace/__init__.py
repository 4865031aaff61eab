"""One marked packet, followed through every interface of the testbed that it crosses."""
