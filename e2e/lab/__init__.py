"""The local cluster: `python3 -m e2e.lab up` needs only this checkout and a bare Debian."""
