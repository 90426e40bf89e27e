"""Scoring a backlog: cases from a table or a folder, one row for each in parquet. Needs no training library.

``command`` is the verb; ``photographs`` and ``folder`` read what is to be scored, ``listing`` makes cases of
it and freezes them, ``rows`` says what is kept of an answer, ``shards`` keeps it, ``state`` says of what,
``engine`` and ``ray_engine`` do the work.
"""
