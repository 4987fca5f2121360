//! One JSON object on one line, written by hand into bytes that are kept: a record is written for every tunnel, and a
//! general serializer took a tenth of the tunnel's time.

use std::{
    cell::RefCell,
    io::Write,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use crate::clock;

thread_local! {
    /// The last second that was written, and its text without fraction.
    static SECOND: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
}

/// An object that is being written.
pub(super) struct Line<'b> {
    bytes: &'b mut Vec<u8>,
}

impl<'b> Line<'b> {
    /// Begin, after what is in `bytes`.
    pub(super) fn begin(bytes: &'b mut Vec<u8>) -> Self {
        bytes.push(b'{');
        Self { bytes }
    }

    /// End it.
    pub(super) fn end(self) {
        self.bytes.push(b'}');
    }

    /// A text.
    pub(super) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        self.quoted(value);
        self
    }

    /// A text, where there is one.
    pub(super) fn maybe(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    /// A number.
    pub(super) fn number(&mut self, key: &str, value: u64) -> &mut Self {
        self.key(key);
        digits(self.bytes, value);
        self
    }

    /// True.
    pub(super) fn flag(&mut self, key: &str) -> &mut Self {
        self.key(key);
        self.bytes.extend_from_slice(b"true");
        self
    }

    /// A time, RFC 3339 in UTC with milliseconds.
    pub(super) fn time(&mut self, key: &str, value: SystemTime) -> &mut Self {
        self.key(key);
        self.bytes.push(b'"');
        let since = value
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        SECOND.with_borrow_mut(|(second, text)| {
            if *second != since.as_secs() {
                *second = since.as_secs();
                text.clear();
                text.extend_from_slice(clock::rfc3339(value).as_bytes());
                // `.mmmZ` comes anew each time.
                text.truncate(text.len().saturating_sub(5));
            }
            self.bytes.extend_from_slice(text);
        });
        self.bytes.push(b'.');
        padded(self.bytes, since.subsec_millis());
        self.bytes.extend_from_slice(b"Z\"");
        self
    }

    /// A duration in milliseconds. Microseconds are enough for a person and a line.
    pub(super) fn millis(&mut self, key: &str, value: Duration) -> &mut Self {
        self.key(key);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        digits(self.bytes, micros / 1000);
        self.bytes.push(b'.');
        padded(self.bytes, u32::try_from(micros % 1000).unwrap_or_default());
        self
    }

    /// An address and port.
    pub(super) fn address(&mut self, key: &str, value: SocketAddr) -> &mut Self {
        self.key(key);
        self.bytes.push(b'"');
        match value.ip() {
            IpAddr::V4(v4) => {
                for (n, octet) in v4.octets().into_iter().enumerate() {
                    if n > 0 {
                        self.bytes.push(b'.');
                    }
                    digits(self.bytes, octet.into());
                }
                self.bytes.push(b':');
                digits(self.bytes, value.port().into());
            }
            // Into memory: it cannot fail.
            IpAddr::V6(_) => drop(write!(self.bytes, "{value}")),
        }
        self.bytes.push(b'"');
        self
    }

    /// A list of addresses.
    pub(super) fn addresses(&mut self, key: &str, values: &[IpAddr]) -> &mut Self {
        self.key(key);
        for (n, value) in values.iter().enumerate() {
            self.bytes.push(if n == 0 { b'[' } else { b',' });
            // Into memory: it cannot fail.
            drop(write!(self.bytes, "\"{value}\""));
        }
        if values.is_empty() {
            self.bytes.push(b'[');
        }
        self.bytes.push(b']');
        self
    }

    /// A list of pairs of texts.
    pub(super) fn pairs(&mut self, key: &str, values: &[(String, String)]) -> &mut Self {
        self.key(key);
        self.bytes.push(b'[');
        for (n, (one, other)) in values.iter().enumerate() {
            self.bytes
                .extend_from_slice(if n == 0 { b"[" } else { b",[" });
            self.quoted(one);
            self.bytes.push(b',');
            self.quoted(other);
            self.bytes.push(b']');
        }
        self.bytes.push(b']');
        self
    }

    /// An object in the object.
    pub(super) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Line<'_>)) -> &mut Self {
        self.key(key);
        let mut inner = Line::begin(self.bytes);
        fill(&mut inner);
        inner.end();
        self
    }

    fn key(&mut self, key: &str) {
        if self.bytes.last() != Some(&b'{') {
            self.bytes.push(b',');
        }
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b"\":");
    }

    /// RFC 8259 §7: quotation mark, reverse solidus and control characters are escaped, nothing else has to be.
    fn quoted(&mut self, value: &str) {
        self.bytes.push(b'"');
        let mut rest = value.as_bytes();
        let special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
        while let Some(at) = rest.iter().position(special) {
            let (plain, special) = rest.split_at(at);
            self.bytes.extend_from_slice(plain);
            if let Some((byte, after)) = special.split_first() {
                match byte {
                    b'"' | b'\\' => self.bytes.extend_from_slice(&[b'\\', *byte]),
                    byte => drop(write!(self.bytes, "\\u{byte:04x}")),
                }
                rest = after;
            }
        }
        self.bytes.extend_from_slice(rest);
        self.bytes.push(b'"');
    }
}

fn digits(bytes: &mut Vec<u8>, mut value: u64) {
    let from = bytes.len();
    loop {
        bytes.push(b'0' + u8::try_from(value % 10).unwrap_or_default());
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if let Some(written) = bytes.get_mut(from..) {
        written.reverse();
    }
}

/// Three digits.
fn padded(bytes: &mut Vec<u8>, thousandths: u32) {
    for divisor in [100, 10, 1] {
        bytes.push(b'0' + u8::try_from(thousandths / divisor % 10).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(fill: impl FnOnce(&mut Line<'_>)) -> Value {
        let mut bytes = Vec::new();
        let mut line = Line::begin(&mut bytes);
        fill(&mut line);
        line.end();
        assert!(!bytes.contains(&b'\n'), "one line");
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn values_are_read_back_as_they_were() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_005);
        let found = read(|line| {
            line.time("time", time)
                .time("later", time + Duration::from_millis(990))
                .number("zero", 0)
                .number("most", u64::MAX)
                .millis("open", Duration::from_micros(1_020))
                .address("v4", "192.0.2.7:443".parse().unwrap())
                .address("v6", "[2001:db8::1]:80".parse().unwrap())
                .maybe("none", None)
                .object("empty", |_| {})
                .object("inner", |inner| {
                    inner.text("a", "b").number("c", 1);
                });
        });
        let expected = json!({
            "time": "1970-01-01T00:20:34.005Z", "later": "1970-01-01T00:20:34.995Z",
            "zero": 0, "most": u64::MAX, "open": 1.02,
            "v4": "192.0.2.7:443", "v6": "[2001:db8::1]:80",
            "empty": {}, "inner": {"a": "b", "c": 1},
        });
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(text in any::<String>()) {
            let found = read(|line| { line.text("text", &text); });
            prop_assert_eq!(found, json!({"text": text}));
        }
    }
}
