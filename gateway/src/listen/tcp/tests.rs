#![allow(clippy::unwrap_used)]

use socket2::SockRef;
use tokio::net::TcpStream;

use super::{Listener, ListenerKind};

/// Options of the listener are its connections' from the start.
#[tokio::test]
async fn what_is_accepted_is_asked_whether_it_lives() {
    let listener = Listener::bind(ListenerKind::Plain, "127.0.0.1:0".parse().unwrap(), None);
    let listener = listener.unwrap();
    let connecting = TcpStream::connect(listener.address);
    let (_client, accepted) = tokio::join!(connecting, listener.socket.accept());
    let accepted = accepted.unwrap().0;
    let socket = SockRef::from(&accepted);
    assert!(socket.keepalive().unwrap() && accepted.nodelay().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 15);
    assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 5);
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    // It would end clients that live and take nothing.
    assert_eq!(socket.tcp_user_timeout().unwrap(), None);
}
