#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::pki_types::ServerName;
use sluicegate_certs::{Authority, ServerIdentity, TrustBundle, tls};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    super::testing::{noise, tcp_pair},
    Broken, Flow, RECORD, Shared, TlsFlow,
};
use crate::flow::{Ahead, Timers, pump};

async fn tls_pair() -> (TlsFlow, TlsFlow) {
    let now = SystemTime::now();
    let authority = Authority::create("test", now).unwrap();
    let identity = authority
        .issue_server(&["service.test".into()], Duration::from_secs(3600), now)
        .unwrap();
    let trust = TrustBundle::empty()
        .with_pem(authority.certificate_pem().as_bytes())
        .unwrap();
    let acceptor = TlsAcceptor::from(tls::server(&ServerIdentity::new(identity), &[]).unwrap());
    let connector = TlsConnector::from(Arc::clone(&tls::client(&trust, &[], None).unwrap()));
    let (near, far) = tcp_pair().await;
    let name = ServerName::try_from("service.test").unwrap();
    let (near, far) = tokio::join!(
        connector.connect(name, Ahead::from(near)),
        acceptor.accept(Ahead::from(far))
    );
    (TlsFlow::new(near.unwrap()), TlsFlow::new(far.unwrap()))
}

async fn read(flow: &mut TlsFlow) -> Result<Option<bytes::Bytes>, Broken> {
    poll_fn(|cx| flow.poll_read(cx)).await
}

async fn write(flow: &mut TlsFlow, bytes: &'static [u8]) {
    let mut chunk = bytes::Bytes::from_static(bytes);
    while !chunk.is_empty() {
        poll_fn(|cx| flow.poll_write(cx, &mut chunk)).await.unwrap();
    }
    poll_fn(|cx| flow.poll_flush(cx)).await.unwrap();
}

#[tokio::test]
async fn close_notify_is_fin_and_the_other_half_goes_on() {
    let (mut near, mut far) = tls_pair().await;
    write(&mut near, b"question").await;
    poll_fn(|cx| near.poll_finish(cx)).await.unwrap();
    assert_eq!(read(&mut far).await, Ok(Some("question".into())));
    assert_eq!(read(&mut far).await, Ok(None));
    write(&mut far, b"answer").await;
    poll_fn(|cx| far.poll_finish(cx)).await.unwrap();
    assert_eq!(read(&mut near).await, Ok(Some("answer".into())));
    assert_eq!(read(&mut near).await, Ok(None));
}

#[tokio::test]
async fn a_tcp_end_without_close_notify_is_a_cut() {
    let (near, mut far) = tls_pair().await;
    near.stream.get_ref().0.shutdown().unwrap();
    assert_eq!(read(&mut far).await, Err(Broken::Truncated));
    drop(near);
}

/// What came before it is passed on, and then it is a cut for good.
#[tokio::test]
async fn what_comes_before_a_cut_is_read_first() {
    let (mut near, mut far) = tls_pair().await;
    write(&mut near, b"question").await;
    near.stream.get_ref().0.shutdown().unwrap();
    assert_eq!(read(&mut far).await, Ok(Some("question".into())));
    for _ in 0..2 {
        assert_eq!(read(&mut far).await, Err(Broken::Truncated));
    }
}

/// Whoever holds what was read holds no more than that, and what was sent in one record comes in one piece.
#[tokio::test]
async fn a_chunk_is_as_long_as_what_is_in_it() {
    let (mut near, mut far) = tls_pair().await;
    // The last is longer than a record.
    let parts = [1, 700, 5000, RECORD - 1, RECORD, RECORD + 1];
    for size in parts {
        let sent = noise(size, 7);
        let mut left = sent.clone();
        while !left.is_empty() {
            poll_fn(|cx| near.poll_write(cx, &mut left)).await.unwrap();
        }
        poll_fn(|cx| near.poll_flush(cx)).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < size {
            let chunk = read(&mut far).await.unwrap().unwrap();
            if heard.is_empty() {
                assert_eq!(chunk.len(), size.min(RECORD));
            }
            heard.extend_from_slice(&chunk);
            let (length, held) = (chunk.len(), chunk.try_into_mut().unwrap().capacity());
            assert!(held < length + 64, "{held} for {length}");
        }
        assert!(heard == sent, "{size}");
    }
}

/// What the kernel closes for a process that is gone has no `drop`; what is dropped is closed when nobody holds it any more.
#[tokio::test]
async fn until_both_ends_are_said_a_close_is_a_reset() {
    let resets = |socket: &Shared| {
        let linger = socket2::SockRef::from(socket).linger().unwrap();
        linger == Some(Duration::ZERO)
    };
    for finish_first in [true, false] {
        for aborted in [true, false] {
            let (mut near, mut far) = tls_pair().await;
            let socket = Shared::clone(near.stream.get_ref().0);
            assert!(resets(&socket));
            poll_fn(|cx| far.poll_finish(cx)).await.unwrap();
            if finish_first {
                poll_fn(|cx| near.poll_finish(cx)).await.unwrap();
                assert!(resets(&socket));
                assert_eq!(read(&mut near).await, Ok(None));
            } else {
                assert_eq!(read(&mut near).await, Ok(None));
                assert!(resets(&socket));
                poll_fn(|cx| near.poll_finish(cx)).await.unwrap();
            }
            assert!(!resets(&socket));
            if aborted {
                near.reset();
            }
            drop(near);
            assert_eq!(resets(&socket), aborted);
        }
    }
}

#[tokio::test]
async fn a_flow_dropped_early_resets() {
    let (near, mut far) = tls_pair().await;
    drop(near);
    assert_eq!(read(&mut far).await, Err(Broken::Reset));
}

#[tokio::test]
async fn bulk_through_two_tls_hops() {
    let ((mut program, mut near), (mut far, mut service)) = (tls_pair().await, tls_pair().await);
    let sent = noise(4 << 20, 9);
    let expected = sent.clone();
    let pumping = async { pump(&mut near, &mut far, Timers::default(), &()).await };
    let sending = async {
        let mut left = sent;
        while !left.is_empty() {
            poll_fn(|cx| program.poll_write(cx, &mut left))
                .await
                .unwrap();
        }
        poll_fn(|cx| program.poll_finish(cx)).await.unwrap();
    };
    let reading = async {
        let mut heard = Vec::new();
        while let Some(data) = read(&mut service).await.unwrap() {
            heard.extend_from_slice(&data);
        }
        poll_fn(|cx| service.poll_finish(cx)).await.unwrap();
        heard
    };
    let (ending, (), heard) = tokio::join!(pumping, sending, reading);
    assert!(heard == expected);
    assert_eq!(ending.how, crate::flow::How::Completed);
}
