"""A search over configurations, each trial a training of its own, judged on the validation split alone."""
