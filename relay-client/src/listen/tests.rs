#![allow(clippy::unwrap_used)]
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use super::{
    Address, AddressError, Listen, ListenError, Listener, own_directory, replace_private_socket,
};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixStream;

#[test]
fn places() {
    let good = [
        "a=unix:///run/a.sock",
        "a=tcp://127.0.0.1:1",
        "a=tcp://[::1]:0",
        "cache:main=tcp://127.9.9.9:2",
    ];
    for text in good {
        let listen = Listen::parse(text).unwrap();
        assert_eq!(format!("{}={}", listen.service, listen.address), text);
    }
    assert_eq!(
        Listen::parse("a=tcp://localhost:5")
            .unwrap()
            .address
            .to_string(),
        "tcp://127.0.0.1:5"
    );
    for text in [
        "",
        "a",
        "=unix:///a",
        "a=unix://a",
        "a=unix:///",
        "a=tcp://x:1",
        "a=udp://127.0.0.1:1",
        "a=tcp://127.0.0.1",
    ] {
        assert!(Listen::parse(text).is_err(), "{text}");
    }
    assert!(matches!(
        Listen::parse("a=tcp://192.0.2.1:1"),
        Err(AddressError::NotLoopback(_))
    ));
    assert!(matches!(
        Listen::parse("a=tcp://0.0.0.0:1"),
        Err(AddressError::NotLoopback(_))
    ));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_unix_socket_is_private_and_goes_with_its_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/here/a.sock");
    let listener = Listener::bind(&Address::Unix(path.clone())).await.unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let (connected, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
    assert!(connected.is_ok() && accepted.is_ok());
    drop(listener);
    assert!(!path.exists());
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

#[tokio::test]
async fn a_dead_socket_is_replaced_a_live_one_and_a_file_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let address = |name: &str| Address::Unix(directory.path().join(name));
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("dead")).unwrap());
    assert!(Listener::bind(&address("dead")).await.is_ok());
    let _live = Listener::bind(&address("live")).await.unwrap();
    assert!(matches!(
        Listener::bind(&address("live")).await,
        Err(ListenError::InUse(_))
    ));
    fs::write(directory.path().join("file"), "precious").unwrap();
    assert!(matches!(
        Listener::bind(&address("file")).await,
        Err(ListenError::NotASocket(_))
    ));
    assert_eq!(
        fs::read_to_string(directory.path().join("file")).unwrap(),
        "precious"
    );
}

/// Its file is all that a killed process leaves.
#[tokio::test]
async fn what_a_killed_predecessor_left_is_replaced_and_its_end_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let address = Address::Unix(path.clone());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let left = UnixStream::connect(&path).await.unwrap_err();
    assert_eq!(left.kind(), std::io::ErrorKind::ConnectionRefused);
    let first = Listener::bind(&address).await.unwrap();
    let (connected, accepted) = tokio::join!(UnixStream::connect(&path), first.accept());
    assert!(connected.is_ok() && accepted.is_ok());
    // Somebody has put another one in its place: that is not the first one's to remove.
    fs::remove_file(&path).unwrap();
    let second = Listener::bind(&address).await.unwrap();
    drop(first);
    let (connected, accepted) = tokio::join!(UnixStream::connect(&path), second.accept());
    assert!(connected.is_ok() && accepted.is_ok());
}

/// As many wait as it takes: it does not answer, and lives.
#[tokio::test]
async fn a_socket_that_is_busy_is_no_leftover() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let unix = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let busy = unix();
    busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    busy.listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let one = unix();
        one.set_nonblocking(true).unwrap();
        if one.connect(&SockAddr::unix(&path).unwrap()).is_err() {
            break;
        }
        waiting.push(one);
    }
    let bound = Listener::bind(&Address::Unix(path.clone())).await;
    assert!(matches!(bound, Err(ListenError::InUse(_))), "{bound:?}");
    assert!(path.exists());
}

#[test]
fn a_socket_is_replaced_whoever_listens_and_a_file_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let before = replace_private_socket(&path).unwrap();
    let after = replace_private_socket(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    let _program = std::os::unix::net::UnixStream::connect(&path).unwrap();
    // Neither blocks.
    assert!(after.accept().is_ok());
    assert_eq!(
        before.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(replace_private_socket(&file).is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

/// Its name is known to everyone: whoever makes it first must not have the sockets.
#[test]
fn a_directory_that_is_not_ours_alone_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| base.path().join(name);
    let fault = |path: &Path| match own_directory(path) {
        Err(ListenError::NotOurs(told, fault)) => {
            assert_eq!(told, path);
            Some(fault)
        }
        other => {
            other.unwrap();
            None
        }
    };
    let own = at("made/here");
    assert_eq!((fault(&own), mode(&own)), (None, 0o700));
    assert_eq!(fault(&own), None, "it stays ours");
    for shared in [0o720, 0o702] {
        fs::set_permissions(&own, fs::Permissions::from_mode(shared)).unwrap();
        assert_eq!(fault(&own), Some("writable by others"), "{shared:o}");
    }
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fault(&own), None);
    symlink(&own, at("link")).unwrap();
    assert_eq!(fault(&at("link")), Some("a symbolic link"));
    symlink(at("nowhere"), at("dangling")).unwrap();
    assert_eq!(fault(&at("dangling")), Some("a symbolic link"));
    fs::write(at("file"), "").unwrap();
    assert_eq!(fault(&at("file")), Some("no directory"));
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&own, Some(65_534), None).unwrap();
        assert_eq!(fault(&own), Some("another user's"));
    }
}
