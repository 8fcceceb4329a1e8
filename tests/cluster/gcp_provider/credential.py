"""Prints the credential with which the embedded cluster lets its administrator in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    kubeconfig = json.loads(Path(os.environ["GCP_STAND_IN_KUBECONFIG"]).read_text())
    request = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
    credential = {
        "apiVersion": request["apiVersion"],
        "kind": "ExecCredential",
        "status": {"token": kubeconfig["users"][0]["user"]["token"]},
    }
    sys.stdout.write(json.dumps(credential))
