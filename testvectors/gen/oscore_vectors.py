#!/usr/bin/env python3
"""Writes oscore_derivation.json and oscore_messages.json.

A second implementation of RFC 8613's formulas, straight from its sections, on
the ciphers and the HKDF of the PyPI package `cryptography` (OpenSSL). Nothing
is taken from the Go code; values are pseudo-random from fixed labels.

    python3 testvectors/gen/oscore_vectors.py testvectors
"""

import hashlib
import json
import pathlib
import sys

import cryptography
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

# number: key, nonce, tag length (RFC 9053 section 4)
AEADS = {
    1: (16, 12, 16), 2: (24, 12, 16), 3: (32, 12, 16), 24: (32, 12, 16),
    10: (16, 13, 8), 11: (32, 13, 8), 12: (16, 7, 8), 13: (32, 7, 8),
    30: (16, 13, 16), 31: (32, 13, 16), 32: (16, 7, 16), 33: (32, 7, 16),
}
HASHES = {5: hashes.SHA256, 6: hashes.SHA384, 7: hashes.SHA512}
CLASS_U = {3, 7, 9, 16, 21, 35, 39}
OBSERVE = 6


def noise(label, n):
    return hashlib.shake_128(label.encode()).digest(n)


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    if n < 256:
        return bytes([major << 5 | 24, n])
    return bytes([major << 5 | 25, n >> 8, n & 255])


def bstr(b):
    return head(2, len(b)) + b


def info(ident, id_context, aead, typ, length):  # section 3.2.1
    ctx = b"\xf6" if id_context is None else bstr(id_context)
    return b"\x85" + bstr(ident) + ctx + head(0, aead) + head(3, len(typ)) + typ.encode() + head(0, length)


def derive(p):
    key, nonce, _ = AEADS[p["aead"]]

    def kdf(ident, typ, length):
        return HKDF(HASHES[p["hkdf"]](), length, p["master_salt"], info(ident, p["id_context"], p["aead"], typ, length)).derive(
            p["master_secret"])

    return kdf(p["sender_id"], "Key", key), kdf(p["recipient_id"], "Key", key), kdf(b"", "IV", nonce)


def make_nonce(aead, common_iv, ident, piv):  # section 5.2
    n = AEADS[aead][1]
    plain = bytes([len(ident)]) + ident.rjust(n - 6, b"\0") + piv.rjust(5, b"\0")
    return bytes(a ^ b for a, b in zip(plain, common_iv))


def make_aad(aead, kid, piv):  # section 5.4
    external = b"\x85\x01\x81" + head(0, aead) + bstr(kid) + bstr(piv) + bstr(b"")
    return b"\x83\x68Encrypt0\x40" + bstr(external)


def encrypt(aead, key, nonce, plaintext, aad):
    if aead in (1, 2, 3):
        return AESGCM(key).encrypt(nonce, plaintext, aad)
    if aead == 24:
        return ChaCha20Poly1305(key).encrypt(nonce, plaintext, aad)
    return AESCCM(key, AEADS[aead][2]).encrypt(nonce, plaintext, aad)


def options(opts):  # RFC 7252 section 3.1
    out, previous = b"", 0

    def nibble(v):
        if v < 13:
            return v, b""
        if v < 269:
            return 13, bytes([v - 13])
        return 14, (v - 269).to_bytes(2, "big")

    for number, value in sorted(opts, key=lambda o: o[0]):
        d, dx = nibble(number - previous)
        l, lx = nibble(len(value))
        out += bytes([d << 4 | l]) + dx + lx + value
        previous = number
    return out


def body(opts, payload):
    return options(opts) + (b"\xff" + payload if payload else b"")


def piv_bytes(n):
    return n.to_bytes(max(1, (n.bit_length() + 7) // 8), "big")


def option9(piv, kid_context, kid):  # section 6.1
    if piv is None and kid is None and kid_context is None:
        return b""
    flags = len(piv or b"") | (16 if kid_context is not None else 0) | (8 if kid is not None else 0)
    out = bytes([flags]) + (piv or b"")
    if kid_context is not None:
        out += bytes([len(kid_context)]) + kid_context
    return out + (kid or b"")


def protect(aead, key, nonce, aad, code, opts, payload, opt, response):
    outer = [o for o in opts if o[0] in CLASS_U or o[0] == OBSERVE] + [(9, opt)]
    inner = [(n, b"" if response and n == OBSERVE else v) for n, v in opts if n not in CLASS_U]
    plaintext = bytes([code]) + body(inner, payload)
    ciphertext = encrypt(aead, key, nonce, plaintext, aad)
    observe = any(n == OBSERVE for n, _ in opts)
    outer_code = (0x45 if observe else 0x44) if response else (0x05 if observe else 0x02)
    return {
        "code": code, "body": body(opts, payload), "plaintext": plaintext, "aad": aad, "nonce": nonce,
        "outer_code": outer_code, "protected": body(outer, ciphertext),
    }


def hexed(x):
    if isinstance(x, bytes):
        return x.hex()
    if isinstance(x, dict):
        return {k: hexed(v) for k, v in x.items()}
    if isinstance(x, list):
        return [hexed(v) for v in x]
    return x


def params(aead, hkdf, i):
    longest = AEADS[aead][1] - 6
    label = f"{aead}/{hkdf}/{i}"
    lengths = [(0, 1), (1, 0), (longest, longest), (longest, 0)][i % 4]
    return {
        "aead": aead, "hkdf": hkdf,
        "master_secret": noise("secret" + label, [16, 32, 1, 64, 65, 300][(i + aead) % 6]),
        "master_salt": noise("salt" + label, [0, 8, 64, 129][(i + hkdf) % 4]),
        "id_context": [None, b"", noise("ctx" + label, 8), noise("ctx" + label, 230)][(i + aead + hkdf) % 4],
        "sender_id": noise("sid" + label, lengths[0]), "recipient_id": noise("rid" + label, lengths[1]),
    }


def derivations():
    out = []
    for aead in sorted(AEADS):
        for hkdf in HASHES:
            for i in range(4):
                p = params(aead, hkdf, i)
                sender, recipient, iv = derive(p)
                out.append({**p, "sender_key": sender, "recipient_key": recipient, "common_iv": iv})
    return out


REQUESTS = [
    (1, [(11, b"tv1")], b""),
    (3, [(11, b"sensors"), (11, b"temp"), (12, b"\x3c")], b"20.5"),
    (1, [(3, b"example.com"), (39, b"coap"), (6, b""), (11, b"obs")], b""),
    (2, [(1, b"\x01\x02"), (3, b"h"), (7, b"\x16\x33"), (16, b"\x05"), (11, b"a" * 200), (15, b"q=1"), (17, b""), (27, b"\x0e"), (60, b"\x10"),
         (252, b"echo"), (258, b"\x1a"), (292, b"tag"), (2049, b"x"), (65000, b"unknown")], b"p" * 300),
    (1, [(6, b"\x01"), (11, b"obs")], b""),
]
RESPONSES = [
    (0x45, [(12, b"\x3c")], b"Hello World!"),
    (0x44, [], b""),
    (0x45, [(4, b"\xab"), (6, b"\x12\x34"), (14, b"\x3c")], b"n"),
    (0x5f, [(14, b""), (27, b"\x0e"), (28, b"\x04\x00")], b"r" * 64),
    (0xa0, [], b"diagnostic"),
]


def messages():
    out = []
    for aead in sorted(AEADS):
        for i, ((code, opts, payload), response) in enumerate(zip(REQUESTS, RESPONSES)):
            p = params(aead, 5 + i % 3, i)
            sender, recipient, iv = derive(p)
            piv, own = piv_bytes([0, 20, 255, 256, 2**40 - 1][i]), piv_bytes([2**40 - 1, 0, 1, 65536, 7][i])
            aad = make_aad(aead, p["sender_id"], piv)
            nonce = make_nonce(aead, iv, p["sender_id"], piv)
            out.append({
                "params": p, "sequence": int.from_bytes(piv, "big"), "response_sequence": int.from_bytes(own, "big"),
                "request": protect(aead, sender, nonce, aad, code, opts, payload, option9(piv, p["id_context"], p["sender_id"]), False),
                "response": protect(aead, recipient, nonce, aad, *response, option9(None, None, None), True),
                "numbered_response": protect(aead, recipient, make_nonce(aead, iv, p["recipient_id"], own), aad, *response,
                                             option9(own, None, None), True),
            })
    return out


def write(path, what, values):
    origin = f"{what}; computed by testvectors/gen/oscore_vectors.py with PyPI cryptography {cryptography.__version__}, independent of the Go code"
    lines = ",\n".join(" " + json.dumps(hexed(v)) for v in values)
    path.write_text('{\n"_source": ' + json.dumps(origin) + ',\n"vectors": [\n' + lines + "\n]\n}\n")


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    write(out / "oscore_derivation.json", "RFC 8613 section 3.2.1 for every AEAD and HKDF", derivations())
    write(out / "oscore_messages.json", "RFC 8613 sections 5 and 6: a request and two answers under every AEAD, seen from the client", messages())
