"""Figures of the report as PNG bytes, a file for each subject. Imports numpy, matplotlib and calibrate.

Okabe-Ito colours, which colour-blind readers can tell apart. Shapes, hatches and line styles repeat the
colours, so that nothing is lost in greyscale.
"""
