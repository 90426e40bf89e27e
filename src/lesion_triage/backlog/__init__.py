"""Scoring a backlog: cases from a table or a folder, one row for each in parquet. Needs no training library.

``command`` is the verb. ``photographs`` and ``folder_walk`` read what is to be scored; ``listing`` groups it
into cases and freezes them. ``rows`` defines what is kept of an answer, ``shards`` stores it, and ``state``
records what it belongs to. ``engine`` and ``ray_engine`` do the work.
"""
