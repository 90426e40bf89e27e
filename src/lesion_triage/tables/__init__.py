"""Numbers in pages, filled in from recorded results. Builds on ``reproduce``, whose cells it prints.

``markers`` finds the places to fill, ``recorded_numbers`` provides the numbers, ``command`` is the verb.
"""
