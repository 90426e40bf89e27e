"""The network and how it learns. Imports data, calibrate, config, bundle and predictions; never export."""
