"""From a config to a finished run: the only reader of the config."""
