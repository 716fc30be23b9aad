"""Jobs of several processes, the devices of all of them, and what they decide together."""
