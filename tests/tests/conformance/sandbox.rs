//! A client of one session that sends exactly the bytes it is told to.

use std::net::SocketAddr;

use data_encoding::BASE64;
use e2e::raw::End;
use e2e::wire::{Head, Reply};
use e2e::{Gateway, Pipe, Wire};
use serde_json::{Value, json};

use crate::forms::{self, FORMS, Form};
use crate::lab::{Lab, Mark};
use crate::streams::{self, Answered, Connection};
use crate::table::{Front, Row};
use crate::tap::Tap;

/// A session's credential and where to take it.
pub(crate) struct Sandbox {
    /// The session's id.
    pub(crate) id: String,
    /// The opaque handle.
    pub(crate) handle: String,
    proxy: SocketAddr,
    /// PEM certificates: the gateway's own authority.
    pub(crate) trust: String,
    socks: SocketAddr,
    transparent: SocketAddr,
    named: SocketAddr,
}

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
            trust: trust_of(&answer),
            socks: gateway.listener("socks").await,
            transparent: gateway.listener("transparent").await,
            named: gateway.listener("sni").await,
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

    /// A connection on which `form` may be asked byte by byte.
    pub(crate) async fn ready(&self, lab: &Lab, form: Form) -> Wire {
        match form {
            Form::Socks => return Wire::dial(self.socks).await,
            Form::Captured => return Wire::dial(self.transparent).await,
            Form::Named => return Wire::dial(self.named).await,
            _ => assert!(!form.is_stream(), "{form:?}"),
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

    /// Ask as a stream, `early` sent behind the request: the answer, if it is not reset; and how far the witnesses' logs were.
    async fn asked(
        &self,
        lab: &Lab,
        form: Form,
        authority: &[u8],
        credential: &str,
        early: &[u8],
    ) -> (Mark, Option<Answered>) {
        let connection = if form.is_http3() {
            Connection::Http3(lab.http3().await)
        } else {
            Connection::http2(self.dial().await).await
        };
        let mark = lab.mark();
        let fields = form.fields(authority, credential).unwrap();
        (mark, connection.ask(form, &fields, early).await)
    }

    /// Can `form` say this, to this lab?
    fn says(lab: &Lab, form: Form, authority: &[u8]) -> bool {
        let known = form != Form::Named || forms::port_of(authority) == Some(lab.api.port());
        known && form.says(authority)
    }

    /// Ask for `authority` by every form, none of which may be served: nothing asked, nothing dialled.
    pub(crate) async fn refused(
        &self,
        lab: &Lab,
        row: &mut Row,
        authority: impl AsRef<[u8]>,
        expect: Expect,
    ) {
        for form in FORMS {
            self.refused_by(lab, row, form, authority.as_ref(), expect)
                .await;
        }
    }

    /// Ask for `authority` by one form, if it can say it, which may not be served: nothing asked, nothing dialled.
    pub(crate) async fn refused_by(
        &self,
        lab: &Lab,
        row: &mut Row,
        form: Form,
        authority: &[u8],
        expect: Expect,
    ) {
        if Self::says(lab, form, authority) {
            let (mark, what) = self.turned_away(lab, form, authority, expect).await;
            lab.nothing_since(&mark, &what);
            row.on(form.front());
        }
    }

    /// The same of a target whose name has to be resolved first: nothing dialled.
    pub(crate) async fn refused_once_resolved(
        &self,
        lab: &Lab,
        row: &mut Row,
        authority: &str,
        expect: Expect,
    ) {
        for form in FORMS {
            if Self::says(lab, form, authority.as_bytes()) {
                let asked = self.turned_away(lab, form, authority.as_bytes(), expect);
                let (mark, what) = asked.await;
                lab.nothing_dialled_since(&mark, &what);
                row.on(form.front());
            }
        }
    }

    async fn turned_away(
        &self,
        lab: &Lab,
        form: Form,
        authority: &[u8],
        expect: Expect,
    ) -> (Mark, String) {
        let what = format!("{form:?} {:?}", authority.escape_ascii().to_string());
        let credential = self.credential();
        if form.is_stream() {
            let (mark, reply) = self.reply_to(lab, form, authority, &credential).await;
            self.is_refused_with(lab, &reply, expect, &what).await;
            return (mark, what);
        }
        let mut wire = self.ready(lab, form).await;
        let mark = lab.mark();
        wire.send(form.head(authority, &credential)).await;
        self.is_refused(lab, &mut wire, expect, &what).await;
        (mark, what)
    }

    /// The whole answer to `authority`, by a form that gives one; and how far the witnesses' logs were before.
    pub(crate) async fn reply(&self, lab: &Lab, form: Form, authority: &str) -> (Mark, Reply) {
        self.reply_to(lab, form, authority, &self.credential())
            .await
    }

    /// The same with these lines as the credential.
    pub(crate) async fn reply_to(
        &self,
        lab: &Lab,
        form: Form,
        authority: impl AsRef<[u8]>,
        credential: &str,
    ) -> (Mark, Reply) {
        let authority = authority.as_ref();
        if form.is_stream() {
            let (mark, answer) = self.asked(lab, form, authority, credential, b"").await;
            let answer = answer.unwrap_or_else(|| panic!("{form:?}: reset"));
            return (mark, answer.reply().await);
        }
        let mut wire = self.ready(lab, form).await;
        let mark = lab.mark();
        wire.send(form.head(authority, credential)).await;
        (mark, wire.reply().await)
    }

    /// The head of the answer to `authority`, and what follows it as it comes: a body, or a tunnel. `None` where the stream is
    /// reset before it is out.
    pub(crate) async fn begun(
        &self,
        lab: &Lab,
        form: Form,
        authority: &str,
    ) -> Option<(Head, Wire<Pipe>)> {
        let (authority, credential) = (authority.as_bytes(), self.credential());
        if form.is_stream() {
            let (_, answer) = self.asked(lab, form, authority, &credential, b"").await;
            return answer.map(Answered::begun);
        }
        let mut wire = self.ready(lab, form).await;
        wire.send(form.head(authority, &credential)).await;
        let head = wire.head().await;
        Some((head, wire.map(Pipe::Tcp)))
    }

    /// A tunnel to `authority` by a form that opens one, `early` sent before its answer.
    pub(crate) async fn opened(
        &self,
        lab: &Lab,
        form: Form,
        authority: &str,
        early: &[u8],
    ) -> Wire<Pipe> {
        let what = format!("{form:?} {authority:?}");
        let (authority, credential) = (authority.as_bytes(), self.credential());
        if form.is_stream() {
            return match self.asked(lab, form, authority, &credential, early).await.1 {
                Some(answered) => answered.tunnel(&what),
                // Cut at once, a stream may be reset before its answer is out.
                None if !early.is_empty() => streams::gone(),
                None => panic!("{what}: reset"),
            };
        }
        let mut wire = self.ready(lab, form).await;
        let head = form.head(authority, &credential);
        wire.send([&head[..], early].concat()).await;
        form.opened(wire, &what).await
    }

    /// Ask about a host as the name server of `run` does: the answer, and how far the witnesses' logs were.
    async fn about(&self, lab: &Lab, host: &[u8]) -> (Mark, Reply) {
        let mut wire = self.dial().await;
        let mark = lab.mark();
        let name: String = host.iter().map(|byte| format!("%{byte:02X}")).collect();
        let fields = format!(
            "Host: gateway.test\r\nAuthorization: Bearer {}\r\n",
            self.handle
        );
        wire.send(format!(
            "GET /egress/v1/names/{name} HTTP/1.1\r\n{fields}\r\n"
        ))
        .await;
        (mark, wire.reply().await)
    }

    /// There is no such name for a sandbox, and nothing was asked.
    pub(crate) async fn has_no_name(&self, lab: &Lab, row: &mut Row, host: &[u8], expect: Expect) {
        let what = format!("the name {:?}", host.escape_ascii().to_string());
        let (mark, reply) = self.about(lab, host).await;
        self.is_refused_with(lab, &reply, expect, &what).await;
        lab.nothing_since(&mark, &what);
        row.on(Front::Names);
    }

    /// There is this name for a sandbox, and nothing was asked.
    pub(crate) async fn has_name(&self, lab: &Lab, row: &mut Row, host: &str) {
        let (mark, reply) = self.about(lab, host.as_bytes()).await;
        assert_eq!(reply.status(), 204, "{host}: {}", reply.text());
        lab.nothing_since(&mark, host);
        row.on(Front::Names);
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
        tap: &Tap,
    ) {
        for form in FORMS {
            if !Self::says(lab, form, authority.as_bytes()) {
                continue;
            }
            let what = format!("{form:?} {authority:?}");
            let before = tap.requests_for(" /probe ").len();
            let reply = if form.tunnels() {
                let mut tunnel = self.opened(lab, form, authority, b"").await;
                let probe = format!("GET /probe HTTP/1.1\r\nHost: {canonical}\r\n\r\n");
                tunnel.send(probe).await;
                tunnel.reply().await
            } else {
                self.reply(lab, form, authority).await.1
            };
            assert_eq!(reply.status(), 200, "{what}: {}", reply.text());
            let seen = tap.requests_for(" /probe ");
            assert_eq!(seen.len(), before + 1, "{what}");
            assert_eq!(seen.last().unwrap().values("host"), [canonical], "{what}");
            row.on(form.front());
        }
    }
}

/// The authority of the gateway, in the answer to a session's creation.
fn trust_of(answer: &Value) -> String {
    let files = answer["files"].as_array().into_iter().flatten();
    files.filter_map(|file| file["pem"].as_str()).collect()
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
