"""Empirical test of the certificate on real logits, beside negative controls whose promise must break."""
