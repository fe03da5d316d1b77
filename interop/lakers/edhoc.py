"""One side of an EDHOC handshake by lakers-python: method 3, suite 2.

    edhoc.py ROLE KEY CRED PEER_CRED CONNECTION_ID TRANSFER MESSAGE_4 [EAD ...]

The words are those of edhocrs/src/main.rs, which does the same in Rust. Here
an EAD item may follow, LABEL or LABEL:HEX, critical if the label is negative;
it goes into every message that this side makes.
"""

import sys

import lakers


def send(message):
    print("message", bytes(message).hex(), flush=True)


def receive():
    return bytes.fromhex(sys.stdin.readline().strip())


def say_ead(items):
    for item in items or []:
        value = item.value()
        print("ead", -item.label() if item.is_critical() else item.label(), "-" if value is None else bytes(value).hex(), flush=True)


def initiator(key, cred, peer, cid, transfer, message_4, ead):
    i = lakers.EdhocInitiator()
    send(i.prepare_message_1(c_i=cid, ead_1=ead))
    other, id_cred, got = i.parse_message_2(receive())
    say_ead(got)
    i.verify_message_2(key, cred, lakers.credential_check_or_fetch(id_cred, peer))
    message_3, _ = i.prepare_message_3(transfer, ead)
    send(message_3)
    if message_4:
        say_ead(i.process_message_4(receive()))
    else:
        i.completed_without_message_4()
    return i, other


def responder(key, cred, peer, cid, transfer, message_4, ead):
    r = lakers.EdhocResponder(key, cred)
    other, got = r.process_message_1(receive())
    say_ead(got)
    send(r.prepare_message_2(transfer, cid, ead))
    id_cred, got = r.parse_message_3(receive())
    say_ead(got)
    r.verify_message_3(lakers.credential_check_or_fetch(id_cred, peer))
    if message_4:
        send(r.prepare_message_4(ead))
    else:
        r.completed_without_message_4()
    return r, other


def item(word):
    label, _, value = word.partition(":")
    return lakers.EADItem(abs(int(label)), int(label) < 0, bytes.fromhex(value) if value else None)


def main():
    role, key, cred, peer, cid = sys.argv[1], *map(bytes.fromhex, sys.argv[2:6])
    transfer = {"by-reference": lakers.CredentialTransfer.ByReference, "by-value": lakers.CredentialTransfer.ByValue}[sys.argv[6]]
    message_4 = {"message_4": True, "no-message_4": False}[sys.argv[7]]
    ead = [item(w) for w in sys.argv[8:]] or None
    try:
        run = {"initiator": initiator, "responder": responder}[role]
        end, other = run(key, cred, peer, cid, transfer, message_4, ead)
    except BaseException as e:  # what panics in Rust is no Exception here
        print("error", type(e).__name__, str(e).replace("\n", " "), flush=True)
        sys.exit(1)
    print("done", end.edhoc_exporter(0, [], 16).hex(), end.edhoc_exporter(1, [], 8).hex(), bytes(other).hex(), flush=True)


if __name__ == "__main__":
    main()
