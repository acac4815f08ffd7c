"""An S3 server on loopback for tests: moto's, which serves one request at a time, with a log and faults on request.

GET /-/log returns the requests served so far. PUT /-/faults takes a list of faults; the first one that fits a request
(`method`, a piece of the `path`) changes it, `times` times: `status` answers it so instead of serving it, `lost` serves
it and then answers so, `delay_s` waits first, `ignore_condition` drops If-None-Match.
"""

import json
import sys
import threading
import time

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ERROR = "<Error><Code>{code}</Code><Message>Please reduce your request rate.</Message></Error>"
CODES = {403: "AccessDenied", 500: "InternalError", 503: "ServiceUnavailable"}


class FaultyServer:
    def __init__(self):
        self.inner = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.Lock()
        self.log = []
        self.faults = []

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path.startswith("/-/"):
            return self.control(environ, start_response)
        with self.lock:
            self.log.append(f"{method} {path}?{environ.get('QUERY_STRING', '')}")
            fault = self.find_fault(method, path)
        time.sleep(fault.get("delay_s", 0))
        if fault.get("ignore_condition"):
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if "status" in fault and not fault.get("lost"):
            return self.fail(environ, start_response, fault["status"])
        with self.lock:  # moto looks whether an object exists and then writes it
            answer = list(self.inner(environ, (lambda *_: None) if fault.get("lost") else start_response))
        return self.fail(environ, start_response, fault["status"]) if fault.get("lost") else answer

    def find_fault(self, method, path):
        for fault in self.faults:
            if fault["times"] > 0 and method in fault.get("method", method) and fault.get("path", "") in path:
                fault["times"] -= 1
                return fault
        return {}

    def fail(self, environ, start_response, status):
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(f"{status} Fault", [("Content-Type", "application/xml")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [ERROR.format(code=CODES[status]).encode()]

    def control(self, environ, start_response):
        with self.lock:
            if environ["REQUEST_METHOD"] == "PUT":
                self.faults = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            answer = json.dumps(self.log).encode()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [answer]


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, FaultyServer(), threaded=True, request_handler=Quiet)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
