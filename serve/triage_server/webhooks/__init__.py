"""Webhooks: answers delivered to a callback that the operator configured; on disk first, signed, retried.

Imported only if ``TRIAGE_WEBHOOKS`` is set. Imports what ``case_pipeline`` imports, and never that itself.
"""
