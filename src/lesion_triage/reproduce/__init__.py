"""Repeats recorded experiments and compares them cell by cell. Builds on the pipeline and its verbs.

``definition`` says what an experiment is, ``steps`` runs it, ``cells`` and ``comparison`` decide whether it
agrees with what ``records`` kept, and ``command`` is the verb.
"""
