#!/usr/bin/env python3
"""A webhook's receiver: writes down what it gets, and answers as it is told.

    receiver.py --port PORT --log FILE --answers FILE [--secret SECRET] [--tls CERTIFICATE KEY]

Each request becomes a JSON line of the log: {"path", "headers", "body", "status", "signature"}, where signature is "valid",
"wrong" or "none", computed here and not by lakeward's code. FILE of --answers is read at each request; it may be missing:
{"status": 200, "headers": {...}, "subjects": {"booking.a": 422}}.
"""

import argparse
import hashlib
import hmac
import http.server
import json
import re
import ssl
import threading
import time

LOG_LOCK = threading.Lock()


def check_signature(secret, header, body):
    if header is None:
        return "none"
    match = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", header)
    if not match or abs(time.time() - int(match[1])) > 300:
        return "wrong"
    expected = hmac.new(secret.encode(), match[1].encode() + b"." + body, hashlib.sha256).hexdigest()
    return "valid" if hmac.compare_digest(expected, match[2]) else "wrong"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            with open(self.server.options.answers) as file:
                answers = json.load(file)
        except FileNotFoundError:
            answers = {}
        event = json.loads(body)
        status = answers.get("subjects", {}).get(event.get("subject"), answers.get("status", 200))
        line = {
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": event,
            "status": status,
            "signature": check_signature(self.server.options.secret, self.headers["Lakeward-Signature"], body),
        }
        with LOG_LOCK, open(self.server.options.log, "a") as log:
            log.write(json.dumps(line) + "\n")
        self.send_response(status)
        for name, value in answers.get("headers", {}).items():
            self.send_header(name, value)
        answer = b"ok" if status < 300 else b"not now"
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True


def main():
    parser = argparse.ArgumentParser(description="a webhook's receiver")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--answers", required=True)
    parser.add_argument("--secret", default="")
    parser.add_argument("--tls", nargs=2)
    options = parser.parse_args()
    server = Server(("127.0.0.1", options.port), Handler)
    server.options = options
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
