"""The HTTP service: photographs in, a disposition out. Of the library it uses ``bundle`` and ``errors``."""
