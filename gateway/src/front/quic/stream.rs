//! One stream on QUIC that carries bytes, and those that ask for one thing: a fresh token, a name.

use std::{future::poll_fn, time::Duration};

use http::StatusCode;
use sluicegate_policy::Denial;
use sluicegate_relay::flow::{Broken, Flow, QuicFlow};
use sluicegate_relay_protocol::{Handshake, Once, message::Message, preamble::Response};
use tokio::time::timeout;

use super::{Shared, refuse};
use crate::{
    front::{
        connect::Accepted,
        connect_tcp::{self, Asker},
        context::is_somebodys,
        names, token,
    },
    listen::Carrying,
    message::Asks,
    secret::Secret,
    telemetry::{Front, Kind},
};

/// Decide and open, as over HTTP; to carry it is left to be awaited. What the client sends before the answer waits in the stream's window; it reaches
/// nobody where the answer is a refusal.
pub(super) async fn open(
    mut flow: QuicFlow,
    token: Secret,
    handshake: Handshake,
    (once, says_taken): (Option<Once>, bool),
    shared: &Shared,
) -> Option<Carrying> {
    let bearer = bearer(&token);
    let peer = shared.from;
    let asker = Asker {
        front: Front::quic,
        peer,
        protocol: None,
        credentials: std::iter::once(bearer.reveal().as_bytes()).collect(),
        html: false,
        channel: shared.channel.as_ref(),
        once: Ok(once),
        carrier: Some(shared.standing.as_ref()),
    };
    // A client that gives up while the target is dialled ends the dial.
    let gone = poll_fn(|cx| flow.poll_broken(cx));
    let context = shared.context();
    let mut opened = match connect_tcp::open(&context, &handshake, asker, gone).await {
        Accepted::Opened(opened) => opened,
        Accepted::Refused(answer) => {
            if is_somebodys(&answer) {
                shared.standing.trust();
            }
            refuse(flow, answer).await;
            return None;
        }
        Accepted::Gone => return None,
    };
    shared.standing.trust();
    opened.answered(200);
    flow.unwatched();
    let say_taken = says_taken && opened.waits_to_be_taken();
    let accepted = Response::Accepted {
        instance: None,
        say_taken,
    };
    // What may take the answer's time may outlast the right to what is open.
    let answered = tokio::select! {
        biased;
        sent = accept(&mut flow, &accepted, shared.patience()) => sent.map_err(|_| None),
        lost = opened.revoked() => Err(Some(lost)),
    };
    match answered {
        Ok(()) => {
            // Dropped, it is reset: the dial is somebody else's now.
            let said = connect_tcp::or_reset(said_taken(&mut flow));
            let taken = opened.taken(said).await;
            taken.then(|| opened.carry(flow, peer, shared.current.clone()))
        }
        Err(lost) => {
            opened.abandon(lost);
            None
        }
    }
}

/// The client says that it has the dial. What it says beside that is for gateways of tomorrow.
async fn said_taken(flow: &mut QuicFlow) -> Result<(), Broken> {
    while flow.head(Message::decode).await? != Message::Taken {}
    Ok(())
}

/// A fresh token for this one.
pub(super) async fn refresh(mut flow: QuicFlow, token: &Secret, shared: &Shared) {
    let context = shared.context();
    let peer = shared.from;
    let answer = token::refreshed(
        &context.authenticator,
        (
            Ok(Secret::new(token.reveal().to_owned())),
            shared.channel.as_ref(),
        ),
        (Front::quic, peer, Some(shared.standing.as_ref())),
        context.detail,
        &context.telemetry,
    );
    if answer.status() != StatusCode::OK {
        return refuse(flow, answer).await;
    }
    shared.standing.trust();
    let sent = async {
        accept(&mut flow, &Response::ACCEPTED, shared.patience()).await?;
        flow.send_head(answer.into_body().to_vec()).await?;
        poll_fn(|cx| flow.poll_finish(cx)).await
    };
    // A client that is gone asks again.
    let _ = sent.await;
}

/// May a name be reached?
pub(super) async fn name(mut flow: QuicFlow, token: &Secret, name: String, shared: &Shared) {
    let bearer = bearer(token);
    let peer = shared.from;
    let credentials = std::iter::once(bearer.reveal().as_bytes());
    let channel = shared.channel.as_ref();
    let context = shared.context();
    let from = (peer, Some(shared.standing.as_ref()));
    let answer = names::answer_to(&context, Ok(name), credentials, channel, from);
    let passes = answer.status().is_success();
    if passes || is_somebodys(&answer) {
        shared.standing.trust();
    }
    if !passes {
        return refuse(flow, answer).await;
    }
    let said = async {
        accept(&mut flow, &Response::ACCEPTED, shared.patience()).await?;
        poll_fn(|cx| flow.poll_finish(cx)).await
    };
    // A client that is gone asks again.
    let _ = said.await;
}

/// As it stands in `Authorization`.
fn bearer(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.reveal()))
}

/// A client that makes no room for it is gone, and what was opened for it is let go.
async fn accept(
    flow: &mut QuicFlow,
    accepted: &Response,
    patience: Duration,
) -> Result<(), Broken> {
    let accepted = accepted.encode().map_err(|_| Broken::Malformed)?;
    let sent = timeout(patience, flow.send_head(accepted)).await;
    sent.unwrap_or(Err(Broken::Lost))
}

/// A stream that did not say in time what it is, or said what cannot be read.
pub(super) async fn no_head(flow: QuicFlow, broken: Option<Broken>, shared: &Shared) {
    let denial = match broken {
        None => Denial::HeadTimeout,
        Some(Broken::Malformed) => Denial::MalformedRequest,
        // It is gone: nobody is there to be told.
        Some(_) => return,
    };
    let mut recorder = shared.begin(Kind::stream);
    let answer = shared
        .context()
        .reject(Asks::Origin, &denial.into(), None, &mut recorder, false);
    refuse(flow, answer).await;
}
