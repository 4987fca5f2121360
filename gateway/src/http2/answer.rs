//! Answers that are whole.

use bytes::Bytes;
use h2::server::SendResponse;
use http::Response;
use sluicegate_relay::flow::Chunk;

/// Send a whole answer. A client that is gone has no use for it.
pub fn answer(mut respond: SendResponse<Chunk>, answer: Response<Bytes>) {
    let (head, body) = answer.into_parts();
    if let Ok(mut send) = respond.send_response(Response::from_parts(head, ()), body.is_empty())
        && !body.is_empty()
    {
        let _ = send.send_data(body.into(), true);
    }
}
