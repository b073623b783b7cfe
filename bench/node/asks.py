"""Runs in the extender's container: asks /explain again and again, tells when its answer changes.

Argument: namespace/pod. A line of JSON for each change: whether all cards are fit, and when.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
EVERY_S = 0.1

url = f"http://127.0.0.1:9381/explain?format=text&pod={sys.argv[1]}"
request = urllib.request.Request(url)
request.add_header("Authorization", f"Bearer {TOKEN.read_text().strip()}")
last = None
while True:
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            fit = "CardNotHealth" not in answer.read().decode()
    except urllib.error.HTTPError:
        fit = None  # a pod that it has not heard of yet
    if fit is not None and fit != last:
        last = fit
        print(json.dumps({"fit": fit, "at": time.time()}), flush=True)
    time.sleep(EVERY_S)
