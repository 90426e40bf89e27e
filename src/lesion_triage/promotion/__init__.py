"""Which bundle is in use, who said so and why: gates, record and verb.

Imports cards, tracking and the bundle.
"""
