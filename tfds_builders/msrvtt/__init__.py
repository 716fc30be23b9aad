"""MSR-VTT as a TFDS builder package."""
