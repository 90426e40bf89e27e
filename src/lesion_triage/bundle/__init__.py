"""The ground floor: the contract between training and serving. Imports no room of ours but errors."""
