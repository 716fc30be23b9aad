"""Files from elsewhere as text, JSON, arrays and pickles, within limits."""
