"""What runs in the processes of NVFlare's own federations, for comparison: a network, and training that takes no time."""
