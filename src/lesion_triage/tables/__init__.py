"""Numbers in pages, filled in from recorded results. Stands above ``reproduce``, whose cells it prints.

``markers`` finds what is to be filled, ``figures`` knows the numbers, ``command`` is the verb.
"""
