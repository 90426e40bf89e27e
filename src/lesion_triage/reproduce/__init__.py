"""Recorded experiments, done again and compared cell by cell. Stands above the road and its verbs.

``definition`` says what an experiment is, ``steps`` does it, ``cells`` and ``comparison`` say whether it
agrees with what ``records`` kept, and ``command`` is the verb.
"""
