"""The test split on the sealed bundle: numbers by slice, figures, one self-contained page."""
