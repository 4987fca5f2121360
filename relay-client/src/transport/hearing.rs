//! Whether a QUIC path still carries both ways, looked at from time to time.
//!
//! That something comes is not enough: where only what the client sends is dropped, the gateway goes on asking for signs of life
//! until it gives the connection up, or goes on sending. What counts is that it acknowledges something, and there is always something
//! to acknowledge: where neither the streams nor quinn's keep-alive have asked for a while, the client asks by itself. The
//! keep-alive alone would not do, as whatever comes, and its acknowledgement, puts it off.

use std::time::Duration;

use sluicegate_relay_protocol::ErrorCode;
use tokio::time::{MissedTickBehavior, timeout};

use super::{closing, life::Life, tuning};
use crate::flow::code;

/// The path is looked at this often …
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// … and takes no new streams when nothing has been acknowledged for this long, though the client has asked.
const SILENCE: Duration = Duration::from_secs(5);
/// What is said of such a path.
pub(super) const SILENT: &str = "no answer over UDP for 5 s";
/// The last packet's way out.
const FLUSH: Duration = Duration::from_secs(1);

/// What is known from looking.
#[derive(Debug, Default)]
struct Hearing {
    answered: u64,
    silent: u32,
}

impl Hearing {
    /// For how long up to this look nothing was acknowledged, where so much is by now.
    fn look(&mut self, answered: u64) -> Duration {
        let heard = answered != self.answered;
        self.silent = if heard { 0 } else { self.silent + 1 };
        self.answered = answered;
        LOOK_EVERY * self.silent
    }
}

/// Retires the connection when it ends or falls silent, and gives it up where it stays so; lets its last packet out.
/// The window is what the connection may have unread, in bytes.
pub(super) async fn watch(
    quic: quinn::Connection,
    socket: quinn::Endpoint,
    window: u32,
    life: Life,
) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    // A process that was held up itself must not take that for the path's silence.
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hearing = Hearing::default();
    let ended = loop {
        tokio::select! {
            ended = quic.closed() => break ended,
            _ = look.tick() => {
                let silence = hearing.look(closing::answered(&quic));
                if silence >= SILENCE {
                    life.end(SILENT);
                }
                if silence >= tuning::IDLE {
                    // quinn would wait for as long again behind the last that came.
                    closing::close(&quic, code(ErrorCode::Forced), SILENT.as_bytes());
                } else if silence > tuning::KEEP_ALIVE {
                    tuning::ask(&quic, window);
                }
            }
        }
    };
    life.end(ended.to_string());
    drop(quic);
    let _ = timeout(FLUSH, socket.wait_idle()).await;
}

#[cfg(test)]
mod tests;
