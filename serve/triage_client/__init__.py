"""Client for the scoring service: ``Client``, ``AsyncClient`` and the types they return.

Imports httpx and the schema of the answer.
"""

from lesion_triage.bundle.history import History
from lesion_triage.bundle.schema import Answer, Disposition
from triage_client.client import AsyncClient, Client
from triage_client.protocol import RefusedError, RetryPolicy, Submitted, Triaged, TriageError, UnansweredError
from triage_client.webhook import AnsweredCase, ForgedError, verify_webhook

__all__ = [
    "Answer",
    "AnsweredCase",
    "AsyncClient",
    "Client",
    "Disposition",
    "ForgedError",
    "History",
    "RefusedError",
    "RetryPolicy",
    "Submitted",
    "TriageError",
    "Triaged",
    "UnansweredError",
    "verify_webhook",
]
