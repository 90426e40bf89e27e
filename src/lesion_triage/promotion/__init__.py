"""Which bundle is in use, who decided it and why: gates, record and verb.

Imports cards, tracking and the bundle.
"""
