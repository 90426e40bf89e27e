"""From a checkpoint to a sealed bundle. Imports train, evaluate, data, calibrate and bundle."""
