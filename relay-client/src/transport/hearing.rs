//! Whether a QUIC path still carries both ways, looked at from time to time.
//!
//! That something comes is not enough: where only what the client sends is dropped, the gateway goes on asking for signs of life
//! until it gives the connection up.

use super::closing;

/// What has passed on a path so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    /// Datagrams that have come.
    came: u64,
    /// Frames sent that are to be acknowledged.
    asked: u64,
    /// Acknowledgements of something that had none before.
    answered: u64,
}

impl Passed {
    pub(super) fn on(quic: &quinn::Connection) -> Self {
        let stats = quic.stats();
        let sent = stats.frame_tx;
        // Of what elicits an acknowledgement (RFC 9000 §13.2), all that a client of ours sends after the handshake. What is not
        // acknowledged is sent again as one of these, or asked after with IMMEDIATE_ACK.
        let asked = [
            sent.ping,
            sent.immediate_ack,
            sent.stream,
            sent.max_data,
            sent.max_stream_data,
            sent.reset_stream,
            sent.stop_sending,
            sent.retire_connection_id,
        ];
        Self {
            came: stats.udp_rx.datagrams,
            asked: asked.iter().sum(),
            answered: closing::answered(quic),
        }
    }
}

/// What is known from looking.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    last: Passed,
    /// Something was sent behind the last acknowledgement.
    owed: bool,
    silent: u32,
}

impl Hearing {
    /// In how many looks up to this one, without a gap, nothing had come back: no datagram, or none with an answer that is owed.
    pub(super) fn look(&mut self, now: Passed) -> u32 {
        let answered = now.answered != self.last.answered;
        self.owed = !answered && (self.owed || now.asked != self.last.asked);
        let silent = self.owed || now.came == self.last.came;
        self.silent = if silent { self.silent + 1 } else { 0 };
        self.last = now;
        self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::{Hearing, Passed};

    /// One look after another, as `(came, asked, answered)`: the last one's count.
    fn looks(all: impl IntoIterator<Item = (u64, u64, u64)>) -> u32 {
        let mut hearing = Hearing::default();
        let counts = all.into_iter().map(|(came, asked, answered)| {
            hearing.look(Passed {
                came,
                asked,
                answered,
            })
        });
        counts.last().unwrap_or_default()
    }

    #[test]
    fn a_path_on_which_nothing_comes_is_silent() {
        assert_eq!(looks([(5, 3, 2), (5, 3, 2), (5, 3, 2)]), 2);
        // Also where something was answered before.
        assert_eq!(looks([(5, 3, 2), (5, 4, 2), (5, 6, 2)]), 2);
        assert_eq!(looks([(5, 3, 2), (5, 4, 2), (6, 4, 3)]), 0);
    }

    #[test]
    fn what_comes_is_no_answer() {
        // The gateway asks for signs of life, and hears none.
        let asking = (1..=10).map(|look| (5 + look, 3 + look, 2));
        assert_eq!(looks([(5, 3, 2)].into_iter().chain(asking)), 10);
        // What is owed stays owed, though it is not sent again between two looks.
        assert_eq!(looks([(5, 3, 2), (6, 4, 2), (7, 4, 2), (8, 4, 2)]), 3);
        assert_eq!(looks([(5, 3, 2), (6, 4, 2), (7, 4, 2), (8, 4, 3)]), 0);
    }

    #[test]
    fn who_only_listens_is_owed_nothing() {
        // Acknowledgements are not acknowledged.
        let listening = (1..=20).map(|look| (5 + look, 3, 2));
        assert_eq!(looks([(5, 3, 2)].into_iter().chain(listening)), 0);
        // An answer and a further question between two looks.
        assert_eq!(looks([(5, 3, 2), (6, 5, 3), (7, 5, 3)]), 0);
    }
}
