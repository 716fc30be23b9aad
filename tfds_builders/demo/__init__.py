"""The rendered demo corpus and its TFDS builder package."""
