"""What predicts the label besides the lesion: an audit of data, splits and model that ends in a verdict."""
