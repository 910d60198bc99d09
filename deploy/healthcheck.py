"""Ask /readyz once; the exit status is the answer. Imports next to nothing: it may run every second.

It sees the variables of the container, not the flags.
"""

import os
import socket
import sys

try:
    names = ("LSTMSERVE_ADMIN_PORT", "LSTMSERVE_PORT", "AIP_HTTP_PORT", "PORT")
    port = int(next((os.environ[name] for name in names if name in os.environ), "8080"))
    host = os.environ.get("LSTMSERVE_HOST", "127.0.0.1")
    # To listen at every address there is one to listen at, and not one to ask.
    host = dict.fromkeys(("0.0.0.0", "::"), "127.0.0.1").get(host, host)
    connection = socket.create_connection((host, port), timeout=2)
    if os.environ.get("LSTMSERVE_TLS_CERTFILE") and "LSTMSERVE_ADMIN_PORT" not in os.environ:
        import ssl

        # To this very container: whose name the certificate bears does not matter.
        connection = ssl._create_unverified_context().wrap_socket(connection)  # noqa: S323, SLF001
    connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
    sys.exit(b" 200 " not in connection.recv(64))
except OSError as error:
    sys.exit(f"not reachable: {error}")
