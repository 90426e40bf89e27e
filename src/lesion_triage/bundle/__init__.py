"""The contract between training and serving. Imports none of our other packages, only the errors."""
