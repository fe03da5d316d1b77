"""Writes the four security contexts of the OSCORE interop specification.

    plugtest-contexts.py DIR

aiocoap's source package has its plug test, but not the contexts it reads from
common-context/: a (client) and b (server) without an ID Context, c and d the
same with one.
"""

import json
import sys
from pathlib import Path

SECRET = {"secret_hex": "0102030405060708090a0b0c0d0e0f10", "salt_hex": "9e7ca92223786340"}
ID_CONTEXT = {"id-context_hex": "37cbf3210017a2d3"}


def write(directory: Path, sender: str, recipient: str, **more: str) -> None:
    directory.mkdir(parents=True)
    settings = {
        "sender-id_hex": sender,
        "recipient-id_hex": recipient,
        "algorithm": "AES-CCM-16-64-128",
        "kdf-hashfun": "sha256",
        "window": 32,
        **more,
    }
    (directory / "settings.json").write_text(json.dumps(settings))
    (directory / "secret.json").write_text(json.dumps(SECRET))
    (directory / "secret.json").chmod(0o600)


base = Path(sys.argv[1])
write(base / "a", "", "01")
write(base / "b", "01", "")
write(base / "c", "", "01", **ID_CONTEXT)
write(base / "d", "01", "", **ID_CONTEXT)
