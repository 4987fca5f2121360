//! Answers on HTTP/2 streams.

use std::{future::poll_fn, io, pin::Pin};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use sluicegate_relay::flow::{Broken, CapsuleFlow, Chunk, Halves, StreamFlow};

use crate::{
    front::{body::ResponseBody, stream::Answer},
    http2,
    telemetry::Protocol,
};

impl Answer for SendResponse<Chunk> {
    const PROTOCOL: Protocol = Protocol::Http2;
    type Body = RecvStream;
    type Tunnel = StreamFlow;
    type Carrier = Halves;

    async fn gone(&mut self) {
        let _ = poll_fn(|cx| self.poll_reset(cx)).await;
    }

    async fn carry_on(&mut self) {
        let mut interim = Response::new(());
        *interim.status_mut() = StatusCode::CONTINUE;
        let _ = self.send_informational(interim);
    }

    async fn whole(self, answer: Response<Bytes>) {
        http2::answer(self, answer);
    }

    async fn stream(self, answer: Response<ResponseBody>) {
        stream(self, answer).await;
    }

    async fn tunnel(
        mut self,
        answer: Response<()>,
        body: RecvStream,
    ) -> Result<StreamFlow, Broken> {
        let send = self.send_response(answer, false);
        send.map(|send| StreamFlow::new(send, body))
            .map_err(|_| Broken::Reset)
    }

    async fn capsules(
        mut self,
        answer: Response<()>,
        body: RecvStream,
    ) -> Result<CapsuleFlow, Broken> {
        let send = self.send_response(answer, false);
        send.map(|send| CapsuleFlow::new(send, body))
            .map_err(|_| Broken::Reset)
    }
}

/// The answer, as the client takes it. What ends before its end is reset.
async fn stream(mut respond: SendResponse<Chunk>, answer: Response<ResponseBody>) {
    let (head, mut body) = answer.into_parts();
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    let end = body.is_end_stream();
    let Ok(mut send) = respond.send_response(response, end) else {
        return;
    };
    if end {
        return;
    }
    loop {
        let frame = tokio::select! {
            frame = next(&mut body) => frame,
            _ = poll_fn(|cx| send.poll_reset(cx)) => return,
        };
        let sent = match frame {
            None => {
                // Refused only where the client is gone.
                let _ = send.send_data(Chunk::default(), true);
                return;
            }
            // Cut: no client may take what came for all there is.
            Some(Err(_)) => return send.send_reset(Reason::INTERNAL_ERROR),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => tokio::select! {
                    sent = send_all(&mut send, data) => sent,
                    // Whether the client takes it or not.
                    () = poll_fn(|cx| body.poll_cut(cx)) => return send.send_reset(Reason::INTERNAL_ERROR),
                },
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => {
                        let _ = send.send_trailers(trailers);
                        return;
                    }
                    Err(_) => true,
                },
            },
        };
        if !sent {
            return;
        }
    }
}

async fn next(body: &mut ResponseBody) -> Option<io::Result<Frame<Bytes>>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// Send as the window allows. `false`: the client is gone.
async fn send_all(send: &mut SendStream<Chunk>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        if send.capacity() == 0 {
            match poll_fn(|cx| send.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
        let part = data.split_to(data.len().min(send.capacity()));
        if !part.is_empty() && send.send_data(part.into(), false).is_err() {
            return false;
        }
    }
    true
}
