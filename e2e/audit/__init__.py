"""An auditor of a cluster's device grants that shares no code with what it audits.

Standard library only: its own parsers, its own arithmetic, its own reading of the C header.
`python3 -m e2e.audit --help` says how to run it.
"""
