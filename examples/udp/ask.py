"""Send one datagram and print the answer, exit code 1 without one in 2 s: `python3 ask.py HOST PORT TEXT`."""

import socket
import sys

host, port, text = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as client:
    client.settimeout(2)
    client.connect((host, int(port)))  # only an answer from there counts
    client.send(text.encode())
    try:
        print(client.recv(65535).decode())
    except OSError as error:
        sys.exit(f"no answer: {error}")
