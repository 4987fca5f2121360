//! A client of one session that sends exactly the bytes it is told to.

use std::net::SocketAddr;

use data_encoding::BASE64;
use e2e::raw::End;
use e2e::wire::Reply;
use e2e::{Gateway, Wire, socks};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::streams;
use crate::table::{Front, Row};

/// A session's credential and where to take it.
pub(crate) struct Sandbox {
    /// The session's id.
    pub(crate) id: String,
    /// The opaque handle.
    pub(crate) handle: String,
    proxy: SocketAddr,
    socks: SocketAddr,
    transparent: SocketAddr,
}

/// One way to ask for a target, and the row's column it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The first request of a connection, Host as the target.
    Connect,
    /// The same as HTTP/1.0 without Host.
    Connect10,
    /// After another request on the same connection.
    ConnectKept,
    /// Host as the target.
    Absolute,
    /// As HTTP/1.0 without Host.
    Absolute10,
    /// SOCKS5, the whole conversation in one segment.
    Socks,
    /// HTTP/1 that was meant for the target's port at some address, as a trusted balancer says, with the session's credential.
    Captured,
}

/// All seven.
pub(crate) const FORMS: [Form; 7] = [
    Form::Connect,
    Form::Connect10,
    Form::ConnectKept,
    Form::Absolute,
    Form::Absolute10,
    Form::Socks,
    Form::Captured,
];

/// What must come of a request that is not served.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// 400, then the connection closes.
    Malformed,
    /// 403 with one of these reasons, and the same in the record.
    Denied(&'static [&'static str]),
    /// Either.
    Refused,
}

impl Form {
    /// The column.
    pub(crate) fn front(self) -> Front {
        match self {
            Self::Connect | Self::Connect10 => Front::Connect,
            Self::ConnectKept => Front::ConnectKept,
            Self::Absolute | Self::Absolute10 => Front::Absolute,
            Self::Socks => Front::Socks,
            Self::Captured => Front::Transparent,
        }
    }

    /// Can it say this at all? SOCKS has two bytes for a port, and 255 for a name. A captured connection has a port before
    /// it has a Host, whose value blanks may surround.
    pub(crate) fn says(self, authority: &[u8]) -> bool {
        match self {
            Self::Socks => socks::request(authority).is_some(),
            Self::Captured => {
                !authority.starts_with(b" ")
                    && !authority.starts_with(b"\t")
                    && port_of(authority).is_some()
            }
            _ => true,
        }
    }

    /// Does a tunnel follow?
    pub(crate) fn tunnels(self) -> bool {
        !matches!(self.front(), Front::Absolute | Front::Transparent)
    }

    /// The request's head.
    pub(crate) fn head(self, authority: &[u8], credential: &str) -> Vec<u8> {
        match self {
            Self::Socks => return conversation(authority, credential),
            Self::Captured => return captured(authority, credential),
            _ => {}
        }
        let (line, rest): (&[u8], &[u8]) = match self {
            Self::Connect | Self::ConnectKept | Self::Connect10 => (b"CONNECT ", b""),
            Self::Absolute | Self::Absolute10 | Self::Socks | Self::Captured => {
                (b"GET http://", b"/probe")
            }
        };
        let fields = match self {
            Self::Connect10 | Self::Absolute10 => [b" HTTP/1.0\r\n".to_vec()].concat(),
            _ => [b" HTTP/1.1\r\nHost: ", authority, b"\r\n"].concat(),
        };
        [
            line,
            authority,
            rest,
            &fields,
            credential.as_bytes(),
            b"\r\n",
        ]
        .concat()
    }
}

impl Form {
    /// Read the answer of a tunnel that is opened.
    pub(crate) async fn opened(self, wire: &mut Wire, what: &str) {
        if self == Self::Socks {
            let opened = [5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            assert_eq!(wire.take(opened.len()).await, opened, "{what}");
        } else {
            let head = wire.head().await;
            assert_eq!(head.status, 200, "{what}: {head:?}");
        }
    }
}

/// The port behind the last colon, where it is one.
fn port_of(authority: &[u8]) -> Option<u16> {
    let colon = authority.iter().rposition(|byte| *byte == b':')?;
    std::str::from_utf8(&authority[colon + 1..])
        .ok()?
        .parse()
        .ok()
}

/// User and password of a `Proxy-Authorization` line.
fn login_of(credential: &str) -> (String, String) {
    let encoded = credential.trim_end().rsplit(' ').next().unwrap();
    let userinfo = BASE64.decode(encoded.as_bytes()).unwrap();
    let userinfo = String::from_utf8(userinfo).unwrap();
    let (name, password) = userinfo.split_once(':').unwrap();
    (name.to_owned(), password.to_owned())
}

/// A PROXY header that names the session and the port that was dialled, and a request to its Host.
fn captured(authority: &[u8], credential: &str) -> Vec<u8> {
    let (_, handle) = login_of(credential);
    let port = port_of(authority).expect("something that has a port");
    let length = u16::try_from(15 + handle.len()).unwrap();
    let value = u16::try_from(handle.len()).unwrap();
    [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..],
        &length.to_be_bytes(),
        &[127, 0, 0, 1, 203, 0, 113, 1, 0x30, 0x39],
        &port.to_be_bytes(),
        &[0xe1],
        &value.to_be_bytes(),
        handle.as_bytes(),
        b"GET /probe HTTP/1.1\r\nHost: ",
        authority,
        b"\r\n\r\n",
    ]
    .concat()
}

/// Greeting, login and request of a SOCKS5 client that waits for no answer.
fn conversation(authority: &[u8], credential: &str) -> Vec<u8> {
    let (name, password) = login_of(credential);
    let request = socks::request(authority).expect("something SOCKS can say");
    [
        socks::GREETING.to_vec(),
        socks::login(&name, &password),
        request,
    ]
    .concat()
}

impl Sandbox {
    /// Create and start a session through the admin API.
    pub(crate) async fn create(gateway: &Gateway, grant: Value) -> Self {
        let path = "/runtime/providers/test/sessions";
        let reply = gateway.admin("POST", path, &grant.to_string()).await;
        assert_eq!(reply.status(), 201, "{grant}: {}", reply.text());
        let answer = reply.json();
        let url = answer["env"]["HTTP_PROXY"].as_str().unwrap();
        let (_, proxy) = url.rsplit_once('@').unwrap();
        Self {
            id: answer["session"]["id"].as_str().unwrap().to_owned(),
            handle: handle_of(&answer),
            proxy: proxy.trim_end_matches('/').parse().unwrap(),
            socks: gateway.listener("socks").await,
            transparent: gateway.listener("transparent").await,
        }
    }

    /// Replace the session's egress.
    pub(crate) async fn patch(&self, gateway: &Gateway, egress: Value) {
        let path = format!("/runtime/providers/test/sessions/{}", self.id);
        let body = json!({"egress": egress}).to_string();
        let reply = gateway.admin("PATCH", &path, &body).await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
    }

    /// `Proxy-Authorization` with its CRLF.
    pub(crate) fn credential(&self) -> String {
        let encoded = BASE64.encode(format!("sluicegate:{}", self.handle).as_bytes());
        format!("Proxy-Authorization: Basic {encoded}\r\n")
    }

    /// A connection to the plain listener.
    pub(crate) async fn dial(&self) -> Wire {
        Wire::dial(self.proxy).await
    }

    /// Send a request line without its version, field lines and the credential, and read the answer.
    pub(crate) async fn ask(&self, line: &str, fields: &str) -> (Reply, Wire) {
        let mut wire = self.dial().await;
        let credential = self.credential();
        wire.send(format!("{line} HTTP/1.1\r\n{fields}{credential}\r\n"))
            .await;
        (wire.reply().await, wire)
    }

    /// An open tunnel.
    pub(crate) async fn tunnel(&self, target: &str) -> Wire {
        let mut wire = self.dial().await;
        let head = Form::Connect.head(target.as_bytes(), &self.credential());
        wire.send(head).await;
        let head = wire.head().await;
        assert_eq!(head.status, 200, "CONNECT {target}: {head:?}");
        wire
    }

    /// A connection on which `form` may be asked.
    pub(crate) async fn ready(&self, lab: &Lab, form: Form) -> Wire {
        match form {
            Form::Socks => return Wire::dial(self.socks).await,
            Form::Captured => return Wire::dial(self.transparent).await,
            _ => {}
        }
        let mut wire = self.dial().await;
        if form == Form::ConnectKept {
            // The setting's own session is always served; who asks next is judged anew.
            let target = lab.plain_target();
            let head = Form::Absolute.head(target.as_bytes(), &lab.session.credential());
            wire.send(head).await;
            assert_eq!(wire.reply().await.status(), 200);
        }
        wire
    }

    /// Ask for `authority` by every form, none of which may be served.
    pub(crate) async fn refused(
        &self,
        lab: &Lab,
        row: &mut Row,
        authority: impl AsRef<[u8]>,
        expect: Expect,
    ) {
        let authority = authority.as_ref();
        for form in FORMS.into_iter().filter(|form| form.says(authority)) {
            self.refused_by(lab, row, form, authority, expect).await;
        }
        if let Some(request) = streams::request(authority, &self.credential()) {
            let what = format!("HTTP/2 {:?}", authority.escape_ascii().to_string());
            let mark = lab.mark();
            let reply = streams::ask(self.proxy, request).await.reply().await;
            self.is_refused_with(lab, &reply, expect, &what).await;
            lab.nothing_since(&mark, &what);
            row.on(Front::Http2);
        }
    }

    /// Ask for `authority` by one form, which may not be served: nothing asked, nothing dialled.
    pub(crate) async fn refused_by(
        &self,
        lab: &Lab,
        row: &mut Row,
        form: Form,
        authority: &[u8],
        expect: Expect,
    ) {
        let what = format!("{form:?} {:?}", authority.escape_ascii().to_string());
        let mut wire = self.ready(lab, form).await;
        let mark = lab.mark();
        wire.send(form.head(authority, &self.credential())).await;
        self.is_refused(lab, &mut wire, expect, &what).await;
        lab.nothing_since(&mark, &what);
        row.on(form.front());
    }

    /// Read a refusal and hold it against the record.
    pub(crate) async fn is_refused(&self, lab: &Lab, wire: &mut Wire, expect: Expect, what: &str) {
        if wire.next().await == 5 {
            return self.is_refused_by_socks(lab, wire, expect, what).await;
        }
        let reply = wire.reply().await;
        self.is_refused_with(lab, &reply, expect, what).await;
        if reply.status() == 400 {
            assert_eq!(wire.rest().await, (Vec::new(), End::Fin), "{what}: goes on");
        }
    }

    /// Hold an answer against the record.
    async fn is_refused_with(&self, lab: &Lab, reply: &Reply, expect: Expect, what: &str) {
        let reason = refusal_reason(reply);
        match expect {
            Expect::Malformed => assert_eq!(reply.status(), 400, "{what}: {}", reply.text()),
            Expect::Denied(reasons) => {
                assert_eq!(reply.status(), 403, "{what}: {}", reply.text());
                assert!(
                    reasons.contains(&reason.as_str()),
                    "{what}: {}",
                    reply.text()
                );
            }
            Expect::Refused => {
                assert!(
                    [400, 403].contains(&reply.status()),
                    "{what}: {}",
                    reply.text()
                );
            }
        }
        if reply.status() == 403 {
            assert!(
                reply.head.value("proxy-status").contains("error="),
                "{what}"
            );
            let record = lab
                .record(reply.json()["requestId"].as_str().unwrap())
                .await;
            assert_eq!(record.text("outcome"), "refused", "{what}: {record:?}");
            assert_eq!(record.text("reason"), reason, "{what}: {record:?}");
        }
    }

    /// The same of SOCKS: a general failure for what is malformed, "not allowed" for what is denied, the reason in the record.
    async fn is_refused_by_socks(&self, lab: &Lab, wire: &mut Wire, expect: Expect, what: &str) {
        let (answer, end) = wire.rest().await;
        assert_eq!(end, End::Fin, "{what}");
        assert_eq!(answer[..4], [5, 2, 1, 0], "{what}");
        let code = answer[5];
        assert_eq!(answer[4..], [5, code, 0, 1, 0, 0, 0, 0, 0, 0], "{what}");
        let record = lab.refusal_of(wire.local()).await;
        let reason = record.text("reason");
        match expect {
            Expect::Malformed => assert_eq!((code, reason), (1, "malformed_target"), "{what}"),
            Expect::Denied(reasons) => {
                assert!(code == 2 && reasons.contains(&reason), "{what}: {record:?}");
            }
            Expect::Refused => assert!([1, 2].contains(&code), "{what}: {record:?}"),
        }
        assert_eq!(record.text("outcome"), "refused", "{what}: {record:?}");
    }

    /// Ask for `authority` by every form; each must reach `tap` as `canonical`.
    pub(crate) async fn served(
        &self,
        lab: &Lab,
        row: &mut Row,
        authority: &str,
        canonical: &str,
        tap: &crate::tap::Tap,
    ) {
        for form in FORMS {
            let what = format!("{form:?} {authority:?}");
            let mut wire = self.ready(lab, form).await;
            let before = tap.requests_for(" /probe ").len();
            wire.send(form.head(authority.as_bytes(), &self.credential()))
                .await;
            if form.tunnels() {
                form.opened(&mut wire, &what).await;
                wire.send(format!("GET /probe HTTP/1.1\r\nHost: {canonical}\r\n\r\n"))
                    .await;
            }
            let reply = wire.reply().await;
            assert_eq!(reply.status(), 200, "{what}: {}", reply.text());
            let seen = tap.requests_for(" /probe ");
            assert_eq!(seen.len(), before + 1, "{what}");
            assert_eq!(seen.last().unwrap().values("host"), [canonical], "{what}");
            row.on(form.front());
        }
        if let Some(request) = streams::request(authority.as_bytes(), &self.credential()) {
            let what = format!("HTTP/2 {authority:?}");
            let before = tap.requests_for(" /probe ").len();
            let mut tunnel = streams::ask(self.proxy, request).await;
            assert_eq!(tunnel.head.status, 200, "{what}");
            let probe = format!("GET /probe HTTP/1.1\r\nHost: {canonical}\r\n\r\n");
            assert_eq!(tunnel.exchange(probe).await, "HTTP/1.1 200 OK", "{what}");
            assert_eq!(tap.requests_for(" /probe ").len(), before + 1, "{what}");
            row.on(Front::Http2);
        }
    }
}

/// The handle in the answer to a session's creation.
pub(crate) fn handle_of(answer: &Value) -> String {
    let url = answer["env"]["HTTP_PROXY"].as_str().unwrap();
    let (before, _) = url.rsplit_once('@').unwrap();
    before.rsplit_once(':').unwrap().1.to_owned()
}

/// The reason token of a refusal's body; empty where there is no such body.
pub(crate) fn refusal_reason(reply: &Reply) -> String {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    body["reason"].as_str().unwrap_or_default().to_owned()
}
