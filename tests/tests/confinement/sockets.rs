//! Unix sockets of the host, which are reached from any network namespace.

use std::ffi::OsStr;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use super::outer::outer;

/// One that every user may connect to.
fn listener(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    listener
}

/// What comes of a connection to each of these.
const CONNECT: &str = "import os, socket, sys\n\
    for path in sys.argv[1:]:\n\
    \x20   try: socket.socket(socket.AF_UNIX).connect(os.fsencode(path)); print('connected')\n\
    \x20   except OSError as error: print(type(error).__name__)\n";

/// A name is any bytes. One that is no text keeps no other from being found, and is found itself.
#[test]
fn a_name_that_is_no_text_hides_nothing_from_us() {
    outer(
        "sockets::a_name_that_is_no_text_hides_nothing_from_us",
        async |outer| {
            let plain = outer.path("home/plain.sock");
            let odd = outer.path("home").join(OsStr::from_bytes(b"\xff.sock"));
            let _listeners = [&plain, &odd].map(|path| listener(path));
            let address = SocketAddr::from_abstract_name(b"\xff\xfe").unwrap();
            let _abstract = UnixListener::bind_addr(&address).unwrap();
            let command = ["/usr/bin/python3", "-c", CONNECT];
            let done = outer.run(&[], &command).args([&plain, &odd]).run().await;
            assert_eq!(
                done.succeeded(),
                "ConnectionRefusedError\nConnectionRefusedError\n"
            );
        },
    );
}
