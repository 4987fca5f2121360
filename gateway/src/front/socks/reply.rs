//! `Denial` to a SOCKS5 reply (RFC 1928 §6): the reason itself stands in the record.

use sluicegate_policy::{Blame, Denial};

/// Succeeded. Where the gateway dials from is nobody's business: BND is all zeros.
pub(super) const SUCCEEDED: u8 = 0;
/// Address type not supported.
pub(super) const ADDRESS_TYPE: u8 = 8;

const FAILURE: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const NETWORK_UNREACHABLE: u8 = 3;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const EXPIRED: u8 = 6;
const COMMAND: u8 = 7;

/// A reply with this code.
pub(super) const fn reply(code: u8) -> [u8; 10] {
    [5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// The code of a refusal. What policy, identity and limits refuse is "not allowed by ruleset", never an outage.
pub(super) const fn code(denial: Denial) -> u8 {
    match denial {
        Denial::UnsupportedProtocol => COMMAND,
        Denial::DnsNotFound | Denial::DnsFailed => HOST_UNREACHABLE,
        Denial::ConnectUnreachable => NETWORK_UNREACHABLE,
        Denial::ConnectRefused | Denial::UpstreamReset => REFUSED,
        Denial::DnsTimeout | Denial::ConnectTimeout | Denial::UpstreamTimeout => EXPIRED,
        Denial::MalformedRequest | Denial::MalformedTarget | Denial::HeadTimeout => FAILURE,
        other => match other.blame() {
            Blame::Downstream => NOT_ALLOWED,
            Blame::Upstream | Blame::Gateway => FAILURE,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_policy_is_no_outage_and_no_outage_a_refusal() {
        for denial in Denial::ALL {
            let code = code(*denial);
            assert!((1..=7).contains(&code), "{denial:?}");
            if denial.status() == 403 || denial.status() == 429 {
                assert_eq!(code, NOT_ALLOWED, "{denial:?}");
            }
            if denial.blame() != Blame::Downstream {
                assert_ne!(code, NOT_ALLOWED, "{denial:?}");
            }
        }
        assert_eq!(super::code(Denial::UnsupportedProtocol), 7);
        assert_eq!(super::code(Denial::ConnectRefused), 5);
        assert_eq!(super::code(Denial::MalformedTarget), 1);
    }
}
