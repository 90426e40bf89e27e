"""From a dataset on disk to a checked table of pictures, and from that table to splits that do not leak.

May import configuration, the bundle and the exception tree; no package beside or above it.
"""
