"""ActivityNet Captions as a TFDS builder package."""
