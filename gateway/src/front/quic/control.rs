//! The control stream: the verdict on a client's credential, and "drain soon".

use sluicegate_policy::Denial;
use sluicegate_relay::{
    flow::{Broken, QuicFlow, code},
    transport::{closing, tuning},
};
use sluicegate_relay_protocol::{ErrorCode, message::Message, preamble::Response};

use super::{Shared, refuse};
use crate::{auth::Presented, message::Asks, secret::Secret, telemetry::Kind};

/// Serve one until the connection ends.
pub(super) async fn serve(mut flow: QuicFlow, token: &Secret, shared: Shared) {
    let downstream = shared.from;
    let context = shared.context();
    let proved = if shared.drain.refusing() {
        Err(Denial::Draining.into())
    } else {
        let presented = Presented::on(token, shared.channel.as_ref());
        let (relay, limits) = (&context.h2.relay, &context.h2.limits);
        relay.prove(presented, downstream, |identity| {
            shared.standing.here(&identity.session)?;
            let (budget, right) = (identity.session.budget(), identity.right());
            shared.standing.carry(budget, right, limits)
        })
    };
    if let Err(refusal) = proved {
        let mut recorder = shared.begin(Kind::request);
        let answer = context.reject(Asks::Origin, &refusal, None, &mut recorder, false);
        return refuse(flow, answer).await;
    }
    let instance = Some(context.h2.relay.opens.instance());
    // The control stream lives as long as its connection.
    drop(context);
    let accepted = Response::Accepted {
        instance,
        say_taken: false,
    };
    let Ok(accepted) = accepted.encode() else {
        return;
    };
    if flow.send_head(accepted).await.is_err() {
        return;
    }
    tuning::proved(&shared.connection);
    shared.standing.trust();
    let mut told = false;
    loop {
        tokio::select! {
            () = shared.leaving.cancelled(), if !told => {
                told = true;
                if flow.send_head(Message::Drain.encode()).await.is_err() {
                    return;
                }
            }
            heard = flow.head(Message::decode) => match heard {
                // Clients of today have nothing to say; those of tomorrow may.
                Ok(_) => {}
                Err(Broken::Malformed) => {
                    let code = code(ErrorCode::Protocol);
                    return closing::close(&shared.connection, code, b"control stream");
                }
                Err(_) => return,
            },
        }
    }
}
