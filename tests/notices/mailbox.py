#!/usr/bin/env python3
"""An SMTP server: writes down what it gets, and answers as it is told.

    mailbox.py --port PORT --log FILE --answers FILE [--tls CERTIFICATE KEY] [--login USER PASSWORD]

With --tls it offers STARTTLS and takes no mail without; with --login no mail from who has not logged in. Each mail becomes a
JSON line of the log: {"from", "to", "subject", "message_id", "text", "attachments": [{"name", "type", "content"}], "tls",
"answer"}. FILE of --answers may hold {"answer": "451 later"}, which is given instead of taking the mail.
"""

import argparse
import email
import email.policy
import json
import ssl
import time

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword


class Handler:
    def __init__(self, options):
        self.options = options

    async def handle_DATA(self, server, session, envelope):
        try:
            with open(self.options.answers) as file:
                answer = json.load(file)["answer"]
        except FileNotFoundError:
            answer = "250 taken"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        line = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "subject": message["Subject"],
            "message_id": message["Message-ID"],
            "text": message.get_body(("plain",)).get_content(),
            "attachments": [
                {
                    "name": part.get_filename(),
                    "type": part.get_content_type(),
                    "content": part.get_payload(decode=True).decode(),
                }
                for part in message.iter_attachments()
            ],
            "tls": session.ssl is not None,
            "answer": answer,
        }
        with open(self.options.log, "a") as log:
            log.write(json.dumps(line) + "\n")
        return answer


def main():
    parser = argparse.ArgumentParser(description="an SMTP server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--answers", required=True)
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--login", nargs=2)
    options = parser.parse_args()

    def authenticate(server, session, envelope, mechanism, data):
        given = isinstance(data, LoginPassword) and [data.login.decode(), data.password.decode()]
        return AuthResult(success=given == options.login, handled=False)

    settings = {}
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
        settings |= {"tls_context": context, "require_starttls": True}
    if options.login:
        settings |= {"authenticator": authenticate, "auth_required": True, "auth_require_tls": bool(options.tls)}
    controller = Controller(Handler(options), hostname="127.0.0.1", port=options.port, **settings)
    controller.start()
    print("ready", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
