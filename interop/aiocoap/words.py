"""The line protocol between the interop tests and a peer's client.

One line is one command: a method and words key=value, byte strings in hex.

    GET path=/oscore/hello/2 query=first=1 accept=0
    PUT path=/oscore/hello/7 format=0 if-match=7b payload=7a
    GET path=/oscore/observe1 observe=2

Answers are ANSWER (the response) and NOTE (each notification), with
code, sealed, format, etag, max-age, observe and payload where present; ERROR
with a text in their place; and END when the command is over.
"""

import json


def load(path: str) -> dict:
    """Credentials, as JSON or, for what JSON cannot say, as CBOR diagnostic notation."""
    with open(path) as f:
        text = f.read()
    if not path.endswith(".diag"):
        return json.loads(text)
    import cbor2
    import cbor_diag

    return cbor2.loads(cbor_diag.diag2cbor(text))


def parse(line: str) -> tuple[str, dict[str, str]]:
    method, *rest = line.split()
    return method, dict(w.split("=", 1) for w in rest)


def show(kind: str, response, sealed: bool) -> None:
    words = [kind, "code=" + response.code.dotted, "sealed=" + str(sealed).lower()]
    opt = response.opt
    if opt.content_format is not None:
        words.append(f"format={int(opt.content_format)}")
    if opt.etag is not None:
        words.append("etag=" + opt.etag.hex())
    if opt.max_age is not None:
        words.append(f"max-age={opt.max_age}")
    if opt.observe is not None:
        words.append(f"observe={opt.observe}")
    words.append("payload=" + response.payload.hex())
    print(*words, flush=True)
