"""Webhooks: answers delivered to a callback that the operator configured; on disk first, signed, retried.

Imported only if ``TRIAGE_WEBHOOKS`` is set. Imports what ``casework`` imports, and never ``casework``.
"""
