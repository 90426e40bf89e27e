"""Calibrator, certified threshold and metrics from a table of logits. Needs numpy; no torch, no picture."""
