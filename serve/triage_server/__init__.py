"""The HTTP service: photographs in, a disposition out. Stands on ``lesion_triage.bundle`` alone."""
