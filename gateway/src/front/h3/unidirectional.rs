//! A client's unidirectional streams.

use std::{
    future::poll_fn,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::{Bytes, BytesMut};
use quinn::RecvStream;
use sluicegate_relay::flow::QuicReceive;

use super::{close, number};
use crate::http3::{Code, Control, Unidirectional};

/// Set Dynamic Table Capacity (RFC 9204 §4.3.1) to zero, which is all there may be.
const NO_CAPACITY: u8 = 0b0010_0000;

/// Which of those that may be there once were there.
#[derive(Default)]
pub(super) struct Seen {
    control: AtomicBool,
    encoder: AtomicBool,
    decoder: AtomicBool,
}

/// Read one to its end. What may not be ends the connection, before the stream is let go of: that would be heard first.
pub(super) async fn serve(receive: RecvStream, seen: Arc<Seen>, connection: quinn::Connection) {
    let mut receive = QuicReceive::new(receive);
    if let Err(code) = read_all(&mut receive, &seen).await {
        close(&connection, code);
    }
}

async fn read_all(receive: &mut QuicReceive, seen: &Seen) -> Result<(), Code> {
    let mut bytes = BytesMut::new();
    let kind = loop {
        if let Some(kind) = Unidirectional::read(&mut bytes)? {
            break kind;
        }
        match read(receive).await {
            Some(more) => bytes.extend_from_slice(&more),
            // It ended before it said what it is (RFC 9114 §6.2): nobody misses it.
            None => return Ok(()),
        }
    };
    let first = match kind {
        Unidirectional::Control => &seen.control,
        Unidirectional::Encoder => &seen.encoder,
        Unidirectional::Decoder => &seen.decoder,
        Unidirectional::Unknown => {
            receive.stop(number(Code::StreamCreation));
            return Ok(());
        }
    };
    if first.swap(true, Ordering::Relaxed) {
        return Err(Code::StreamCreation);
    }
    let mut control = Control::default();
    let mut next = Some(bytes.freeze());
    while let Some(bytes) = next {
        match kind {
            Unidirectional::Control => control.read(bytes)?,
            Unidirectional::Encoder if bytes.iter().any(|byte| *byte != NO_CAPACITY) => {
                return Err(Code::EncoderStream);
            }
            // What its decoder says is of no use here: we insert nothing.
            Unidirectional::Encoder | Unidirectional::Decoder | Unidirectional::Unknown => {}
        }
        next = read(receive).await;
    }
    Err(Code::ClosedCriticalStream)
}

async fn read(receive: &mut QuicReceive) -> Option<Bytes> {
    poll_fn(|cx| receive.poll_bytes(cx)).await.ok().flatten()
}
