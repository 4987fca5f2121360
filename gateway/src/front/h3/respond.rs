//! Answers on HTTP/3 streams.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame};
use sluicegate_relay::{
    flow::{Broken, CapsuleFlow, Connection, QuicSend},
    transport::tuning,
};
use tokio::time::timeout;

use super::{body::Body, number, tunnel::Tunnel};
use crate::{
    front::{body::ResponseBody, stream::Answer},
    http3::{self, Code},
    telemetry::Protocol,
};

/// Has the request been of any use? It had an answer, or it became a tunnel that its client did not give up before a byte had
/// passed.
#[derive(Clone, Debug, Default)]
pub(super) struct Worth(Arc<AtomicBool>);

impl Worth {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The sending side of a request stream. Dropped without having been finished, it is reset.
pub(super) struct Respond {
    /// `None` once somebody else takes care of it.
    send: Option<QuicSend>,
    worth: Worth,
    connection: quinn::Connection,
    /// How long a client may make no room for the head.
    patience: Duration,
}

impl Respond {
    pub(super) fn new(
        send: QuicSend,
        connection: &quinn::Connection,
        patience: Duration,
    ) -> (Self, Worth) {
        let worth = Worth::default();
        let respond = Self {
            send: Some(send),
            worth: worth.clone(),
            connection: connection.clone(),
            patience,
        };
        (respond, worth)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Broken> {
        match &mut self.send {
            Some(send) => send.write(bytes).await,
            None => Err(Broken::Reset),
        }
    }

    /// A client that makes no room for it is gone: until it is carried nobody watches the right to what was opened for it.
    async fn head(&mut self, answer: &Response<()>) -> Result<(), Broken> {
        let patience = self.patience;
        let sent = timeout(patience, self.write(http3::answer(answer))).await;
        sent.unwrap_or(Err(Broken::Lost))
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Broken> {
        if data.is_empty() {
            return Ok(());
        }
        self.write(http3::data_head(data.len())).await?;
        self.write(data).await
    }

    /// FIN; what was written goes out though this is dropped.
    fn finish(mut self) {
        if let Some(mut send) = self.send.take() {
            // Refused only where the client is gone.
            let _ = send.finish();
        }
    }

    /// No client may take what came for all there is.
    fn cut(mut self) {
        if let Some(mut send) = self.send.take() {
            send.reset(number(Code::Internal));
        }
    }

    /// Send what comes. `false`: it was cut.
    async fn pass(&mut self, body: &mut ResponseBody) -> Result<bool, Broken> {
        loop {
            let frame = tokio::select! {
                frame = next(body) => frame,
                () = self.gone() => return Err(Broken::Reset),
            };
            match frame {
                None => return Ok(true),
                Some(Err(_)) => return Ok(false),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => tokio::select! {
                        sent = self.data(data) => sent?,
                        // Whether the client takes it or not.
                        () = poll_fn(|cx| body.poll_cut(cx)) => return Ok(false),
                    },
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.write(http3::behind(&trailers)).await?;
                            return Ok(true);
                        }
                    }
                },
            }
        }
    }
}

impl Drop for Respond {
    fn drop(&mut self) {
        if let Some(send) = &mut self.send {
            send.reset(number(Code::RequestCancelled));
        }
    }
}

impl Answer for Respond {
    const PROTOCOL: Protocol = Protocol::Http3;
    type Body = Body;
    type Tunnel = Tunnel;
    type Carrier = Connection<Tunnel>;

    async fn gone(&mut self) {
        match &mut self.send {
            Some(send) => drop(send.broken().await),
            None => std::future::pending().await,
        }
    }

    async fn carry_on(&mut self) {
        let _ = self.write(http3::carry_on()).await;
    }

    async fn whole(mut self, answer: Response<Bytes>) {
        let (head, body) = answer.into_parts();
        let head = Response::from_parts(head, ());
        if self.head(&head).await.is_err() {
            return;
        }
        self.worth.set();
        if self.data(body).await.is_ok() {
            self.finish();
        }
    }

    async fn stream(mut self, answer: Response<ResponseBody>) {
        let (head, mut body) = answer.into_parts();
        if self.head(&Response::from_parts(head, ())).await.is_err() {
            return;
        }
        self.worth.set();
        match self.pass(&mut body).await {
            Ok(true) => self.finish(),
            Ok(false) => self.cut(),
            Err(_) => {}
        }
    }

    async fn tunnel(mut self, answer: Response<()>, body: Body) -> Result<Tunnel, Broken> {
        self.head(&answer).await?;
        // Whoever has a tunnel is known: it may fill more than a stranger may.
        tuning::proved(&self.connection);
        let send = self.send.take().ok_or(Broken::Reset)?;
        Ok(Tunnel::new(send, body.into_reading(), self.worth.clone()))
    }

    async fn capsules(
        self,
        answer: Response<()>,
        body: Body,
    ) -> Result<CapsuleFlow<Connection<Tunnel>>, Broken> {
        let tunnel = self.tunnel(answer, body).await?;
        Ok(CapsuleFlow::upgraded(tunnel, Bytes::new()))
    }
}

async fn next(body: &mut ResponseBody) -> Option<io::Result<Frame<Bytes>>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use bytes::Bytes;
    use http::Response;
    use sluicegate_relay::flow::QuicSend;

    use super::Respond;
    use crate::{
        front::stream::Answer,
        relay::testing::{World, within},
    };

    #[tokio::test]
    async fn a_client_that_makes_no_room_for_an_answer_is_not_waited_for() {
        let world = World::new().await;
        let gateway = world.unserved_quic();
        let mut none = quinn::TransportConfig::default();
        none.stream_receive_window(quinn::VarInt::from_u32(0));
        let address = gateway.local_addr().unwrap();
        let asking = async {
            let (socket, connection) = world.quic_at(address, none).await.unwrap();
            let (mut send, receive) = connection.open_bi().await.unwrap();
            send.write_all(b"?").await.unwrap();
            (socket, connection, send, receive)
        };
        let answering = async {
            let connection = gateway.accept().await.unwrap().await.unwrap();
            let (send, receive) = connection.accept_bi().await.unwrap();
            let patience = Duration::from_millis(50);
            let (respond, _) = Respond::new(QuicSend::new(send), &connection, patience);
            respond.whole(Response::new(Bytes::new())).await;
            (connection, receive)
        };
        let both = async { tokio::join!(asking, answering) };
        within("that it is given up", both).await;
    }
}
