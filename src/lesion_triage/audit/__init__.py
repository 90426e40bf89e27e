"""What else than the lesion tells the label: an audit of data, splits and model that ends in a verdict."""
