"""The benchmark: the service, its peers and the limits, side by side on this machine."""
