#!/usr/bin/env python3
"""Speaks to a gateway ever more slowly: `drip-tls.py https|vencrypt hello|inside PORT`.

Before TLS is up (`hello`) or inside it, sends a byte each tenth of a second until the
gateway closes; prints the seconds that took.
"""
import socket
import ssl
import sys
import time

UNFINISHED_HELLO = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])


def take(stream, count):
    received = b""
    while len(received) < count:
        part = stream.recv(count - len(received))
        if not part:
            sys.exit("closed too early")
        received += part
    return received


def choose_vencrypt(stream):
    take(stream, 12)
    stream.sendall(b"RFB 003.008\n")
    take(stream, take(stream, 1)[0])
    stream.sendall(b"\x13")
    take(stream, 2)
    stream.sendall(b"\x00\x02")
    take(stream, 1)
    take(stream, 4 * take(stream, 1)[0])
    stream.sendall((262).to_bytes(4, "big"))
    take(stream, 1)


def main():
    protocol, where, port = sys.argv[1:]
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    began = time.monotonic()
    stream = socket.create_connection(("127.0.0.1", int(port)), 20)
    if protocol == "vencrypt":
        choose_vencrypt(stream)
    if where == "hello":
        drops = UNFINISHED_HELLO
    else:
        stream = context.wrap_socket(stream)
        # A name and a password of 200 bytes are announced; or a request without end.
        drops = bytes([0, 0, 0, 200, 0, 0, 0, 200]) if protocol == "vencrypt" else b"GET /vnc"
    try:
        for drop in drops + bytes([65]) * 400:
            stream.settimeout(0.1)
            stream.sendall(bytes([drop]))
            try:
                if not stream.recv(1):
                    break
            except TimeoutError:
                pass
    except (ConnectionError, ssl.SSLError):
        pass
    print(time.monotonic() - began)


main()
