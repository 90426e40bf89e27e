"""A search over configurations: each trial trains, and is judged on the validation split alone."""
