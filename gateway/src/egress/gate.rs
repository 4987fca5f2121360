//! The first bytes of a tunnel, judged before any of them reaches the upstream.
//!
//! Pure: fed with chunks, asked about the deadline. What is held is held by the pump.

mod line;
mod watch;

use sluicegate_policy::{Denial, FirstBytes, Hello, TargetPermit, TlsRule};

use self::line::{after_blank, first_line};
use self::watch::{Line, LineWatch};
use crate::sniff::{ClientHello, ClientStep, HelloWatch, Reader, ServerStep, Sni, Verdict};

/// What to do with the client's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Hold everything: not decided.
    Hold,
    /// Forward everything held; go on asking.
    Forward,
    /// Forward everything held; the gate is open for good.
    Open,
    /// Plain HTTP/1: judge it request by request.
    Http,
    /// Cut the tunnel; nothing that is held may leave.
    Cut(Denial),
}

/// Judges one tunnel's first bytes by its permit's rule.
#[derive(Debug)]
pub struct Gate {
    permit: TargetPermit,
    phase: Phase,
    /// The client began a TLS record: a cut can be said in TLS.
    tls: bool,
    /// One of its hellos was encrypted.
    ech: bool,
    /// What report mode let pass.
    reported: Option<Denial>,
    /// What the client began with, once that is known, whether it may pass or not.
    began: Option<FirstBytes>,
    /// It began with a PROXY header.
    preamble: bool,
}

#[derive(Debug)]
enum Phase {
    First(Box<Reader>),
    /// Not TLS; a line of HTTP, perhaps.
    Line,
    /// Not TLS, and a line that is not waited for: it goes, and is watched.
    Going(LineWatch),
    /// A hello that passed.
    Watch(Box<HelloWatch>),
}

/// Content type of a TLS handshake record.
const HANDSHAKE: u8 = 22;

impl Gate {
    /// A gate for this permit; `None` where the rule lets any bytes pass.
    pub fn new(permit: &TargetPermit) -> Option<Self> {
        match permit.tls() {
            TlsRule::Opaque => None,
            TlsRule::Require | TlsRule::Auto => Some(Self {
                permit: permit.clone(),
                phase: Phase::First(Box::default()),
                tls: false,
                ech: false,
                reported: None,
                began: None,
                preamble: false,
            }),
        }
    }

    /// Must the upstream's bytes wait until the client's are judged? Under `require` a protocol in which the server
    /// speaks first gets nothing (it is cut at the deadline).
    pub fn holds_upstream(&self) -> bool {
        self.permit.tls() == TlsRule::Require && !matches!(self.phase, Phase::Watch(_))
    }

    /// Is a verdict on bytes still owed? (A second hello is waited for without a deadline of its own.)
    pub fn undecided(&self) -> bool {
        !matches!(self.phase, Phase::Watch(_) | Phase::Going(_))
    }

    /// The refusal when the deadline passes now. Under `auto` a silent client may be waiting for the server to speak.
    pub fn at_deadline(&self, held: usize) -> Option<Denial> {
        let owed = self.undecided() && (held > 0 || self.permit.tls() == TlsRule::Require);
        owed.then_some(Denial::FirstBytesTimeout)
    }

    /// The client ended while these bytes were held: may they go? A hello that is not whole may not, nor half a request: some
    /// servers take the end of the stream for the end of the line. Where methods and paths are ruled other bytes go in report
    /// mode only, which is told.
    pub fn at_end(&mut self, held: &[u8]) -> Option<Denial> {
        match self.phase {
            Phase::First(_) | Phase::Watch(_) => Some(Denial::TlsMalformed),
            Phase::Line => match first_line(&[held, b"\n"].concat()) {
                Step::Http => Some(Denial::MalformedRequest),
                Step::Cut(denial) => {
                    self.preamble = denial == Denial::MalformedRequest;
                    Some(denial)
                }
                Step::Hold | Step::Forward | Step::Open => {
                    let denial = self.bound();
                    if denial.is_none() {
                        self.pass();
                    }
                    denial
                }
            },
            // Nothing of it is held.
            Phase::Going(_) => None,
        }
    }

    /// Methods and paths are ruled, and what goes by cannot be judged by them.
    fn bound(&self) -> Option<Denial> {
        let ruled = self.permit.keeps_to_requests();
        ruled.then_some(Denial::MethodNotAllowed)
    }

    /// It goes by all the same: in report mode that is told.
    fn pass(&mut self) {
        if self.permit.http().next().is_some() {
            self.reported = Some(Denial::MethodNotAllowed);
        }
    }

    /// Did the client begin TLS?
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Did the client begin with a PROXY header? A cut for that says so.
    pub fn preamble(&self) -> bool {
        self.preamble
    }

    /// What report mode let pass.
    pub fn reported(&self) -> Option<Denial> {
        self.reported
    }

    /// What the client began with, once that was judged.
    pub fn seen(&self) -> Option<&FirstBytes> {
        match &self.phase {
            Phase::Watch(_) | Phase::Going(_) => self.began.as_ref(),
            Phase::First(_) | Phase::Line => None,
        }
    }

    /// The same, of a gate that is open for good.
    pub fn into_seen(self) -> FirstBytes {
        self.began.unwrap_or(FirstBytes::Other)
    }

    /// The same for a record: also of what was cut for it.
    pub fn take_began(&mut self) -> Option<FirstBytes> {
        self.began.take()
    }

    /// Was a hello an encrypted one?
    pub fn ech(&self) -> bool {
        self.ech
    }

    /// The client's next bytes: `held` is everything not yet forwarded, and ends with the `new` ones.
    pub fn client_sent(&mut self, held: &[u8], new: usize) -> Step {
        let chunk = held
            .get(held.len().saturating_sub(new)..)
            .unwrap_or_default();
        let bound = self.bound();
        match &mut self.phase {
            Phase::First(reader) => {
                self.tls |= held.first() == Some(&HANDSHAKE);
                match reader.feed(chunk) {
                    Verdict::NeedMore => Step::Hold,
                    Verdict::Malformed(_) => Step::Cut(Denial::TlsMalformed),
                    // Methods and paths cannot be seen inside TLS: letting it pass would go round them.
                    Verdict::Hello(hello) => {
                        self.ech |= hello.ech || hello.ech_draft;
                        let judged = shown(&hello).and_then(|shown| {
                            let judged = self.permit.judge_hello(&shown);
                            self.began = Some(FirstBytes::Tls(shown));
                            judged
                        });
                        if let Err(denial) = bound.map_or(judged, Err) {
                            return Step::Cut(denial);
                        }
                        let rest = held.get(reader.consumed()..).unwrap_or_default();
                        let mut watch = std::mem::take(reader.as_mut()).into_watch();
                        let step = watch.from_client(rest);
                        self.phase = Phase::Watch(Box::new(watch));
                        self.pass();
                        self.after_hello(step)
                    }
                    Verdict::NotTls if self.permit.tls() == TlsRule::Require => {
                        self.began = Some(FirstBytes::Other);
                        Step::Cut(Denial::TlsRequired)
                    }
                    Verdict::NotTls => {
                        // It may have begun like a record.
                        self.tls = false;
                        self.phase = Phase::Line;
                        self.line(held)
                    }
                }
            }
            Phase::Line => self.line(held),
            Phase::Going(watch) => after_line(watch.feed(chunk)),
            Phase::Watch(watch) => {
                let step = watch.from_client(chunk);
                self.after_hello(step)
            }
        }
    }

    /// The upstream's next bytes, before they are forwarded. `true`: the gate is open for good.
    pub fn server_sent(&mut self, chunk: &[u8]) -> bool {
        match &mut self.phase {
            Phase::Watch(watch) => watch.from_server(chunk) == ServerStep::Done,
            Phase::First(_) | Phase::Line | Phase::Going(_) => false,
        }
    }

    /// Not TLS: HTTP is judged as HTTP, and where methods and paths are ruled nothing else may pass.
    fn line(&mut self, held: &[u8]) -> Step {
        match (first_line(held), self.bound()) {
            (Step::Open | Step::Forward, Some(denial)) => {
                self.began = Some(FirstBytes::Other);
                Step::Cut(denial)
            }
            (Step::Forward, None) => {
                self.pass();
                self.began = Some(FirstBytes::Other);
                let mut watch = LineWatch::default();
                let line = watch.feed(after_blank(held));
                self.phase = Phase::Going(watch);
                after_line(line)
            }
            (Step::Open, None) => {
                self.pass();
                Step::Open
            }
            (step, _) => {
                // Nothing else is cut so here: what is wrong with a request is for its judge.
                self.preamble = step == Step::Cut(Denial::MalformedRequest);
                step
            }
        }
    }

    /// RFC 8446 §4.1.2 has the client repeat its hello but for keys, cookies and the like, and RFC 9849 (§6.1.5, §6.2) ECH
    /// too: neither that nor the name is among what may change.
    fn is_repeated(&self, second: &Hello) -> bool {
        matches!(self.seen(), Some(FirstBytes::Tls(first)) if first == second)
    }

    fn after_hello(&mut self, step: ClientStep) -> Step {
        match step {
            ClientStep::Pass => Step::Forward,
            ClientStep::NeedMore => Step::Hold,
            ClientStep::Done => Step::Open,
            ClientStep::Malformed(_) => Step::Cut(Denial::TlsMalformed),
            ClientStep::Hello(hello) => {
                self.ech |= hello.ech || hello.ech_draft;
                match judge_hello(&self.permit, &hello) {
                    Ok(shown) if self.is_repeated(&shown) => Step::Open,
                    Ok(_) => Step::Cut(Denial::TlsMalformed),
                    Err(denial) => Step::Cut(denial),
                }
            }
        }
    }
}

/// A request would have to be judged, and its head is no longer whole.
fn after_line(line: Line) -> Step {
    match line {
        Line::Goes => Step::Forward,
        Line::Other => Step::Open,
        Line::Request => Step::Cut(Denial::MalformedRequest),
    }
}

/// By the rule, of what the hello shows.
fn judge_hello(permit: &TargetPermit, hello: &ClientHello) -> Result<Hello, Denial> {
    let shown = shown(hello)?;
    permit.judge_hello(&shown)?;
    Ok(shown)
}

/// What rules ask of a hello.
fn shown(hello: &ClientHello) -> Result<Hello, Denial> {
    let sni = match &hello.sni {
        None => None,
        Some(Sni::Name(name)) => Some(name.as_str().into()),
        Some(Sni::Malformed) => return Err(Denial::TlsMalformed),
    };
    Ok(Hello {
        sni,
        ech: hello.ech,
        ech_draft: hello.ech_draft,
    })
}

/// Do these first bytes, which are not TLS, begin an HTTP/1 request? `None` while they may. A line that is not waited for is none: the gate
/// watches it.
pub fn is_http(held: &[u8]) -> Option<bool> {
    match first_line(held) {
        Step::Hold => None,
        step => Some(step == Step::Http),
    }
}

#[cfg(test)]
mod tests;
