"""The gRPC health service of grpcio-health-checking.

    health.py serve SERVICE      prints `ready PORT`; SIGUSR1: SERVICE serves no more; SIGUSR2: it does again
"""

import signal
import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def main():
    service = sys.argv[2]
    servicer = health.HealthServicer()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer.set(service, SERVING)
    # A handler must not wait for a lock that the interrupted code holds.
    later = lambda status: threading.Thread(target=servicer.set, args=(service, status)).start()
    signal.signal(signal.SIGUSR1, lambda *_: later(NOT_SERVING))
    signal.signal(signal.SIGUSR2, lambda *_: later(SERVING))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"ready {port}", flush=True)
    while True:
        signal.pause()


main()
