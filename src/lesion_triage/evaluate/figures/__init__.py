"""Figures of the report as PNG bytes, a file for each subject. Imports numpy, matplotlib and calibrate.

Colours are those of Okabe & Ito, distinct to the colour-blind; shapes, hatches and line styles repeat what
they say, so that nothing is lost in grey.
"""
