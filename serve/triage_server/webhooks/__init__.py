"""Answers brought to a callback that the operator named: kept on the disk first, signed, tried again.

Imported only where ``TRIAGE_WEBHOOKS`` is set. Imports what ``casework`` imports, and never ``casework``.
"""
