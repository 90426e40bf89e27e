"""What a clinic does with a bundle and its own confirmed cases. Needs no training library."""
