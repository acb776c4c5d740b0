"""A proxy in front of an object store: counts bytes, and requests by what they are for and what they cost."""

import re
import socket
import threading
from collections import Counter

# Of the tests' store.
KEY = "S3RVER"

# A client waits for the answer before it asks again, so a request begins a block.
REQUEST = re.compile(rb"(GET|PUT|POST|DELETE|HEAD) (/\S*) HTTP/1\.1\r\n")


class Proxy:
    """Passes bytes on and counts them."""

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.sent = self.received = 0
        self.requests = Counter()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.target)
            threading.Thread(target=self.relay, args=(client, server, "sent"), daemon=True).start()
            threading.Thread(target=self.relay, args=(server, client, "received"), daemon=True).start()

    def relay(self, source, target, counter):
        try:
            while block := source.recv(1 << 18):
                target.sendall(block)
                with self.lock:
                    setattr(self, counter, getattr(self, counter) + len(block))
                    if counter == "sent" and (request := REQUEST.match(block)):
                        self.requests[kind(*request.groups())] += 1
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def kind(method, path):
    """Whether it is about a table or about lakeward's own ledger, and what a store bills it as, as far as the request line tells."""
    billed = "LIST" if method == b"GET" and b"list-type=" in path else method.decode()
    return ("ledger" if b"_lakeward" in path else "table", billed)


def lake_toml(url, port, column_splice=True):
    """The `[lake]` part of a configuration: a lake at the tests' store, by way of a proxy."""
    return f"""url = "{url}"
column_splice = {"true" if column_splice else "false"}
[lake.storage]
aws_endpoint_url = "http://127.0.0.1:{port}"
aws_allow_http = true
aws_region = "us-east-1"
aws_access_key_id = "{KEY}"
aws_secret_access_key = "{KEY}\""""
