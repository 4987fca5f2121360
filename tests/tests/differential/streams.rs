//! Requests of clients that speak HTTP/2 and HTTP/3: fields as they are sent, and no library that would set them right.

use e2e::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame,
};
use e2e::{Http3, Session, Wire, World, within};
use serde_json::{Value, json};

use crate::cases::SMUGGLED;

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Two,
    Three,
}

/// One request on a stream: fields one byte a character, `{T}` for the target.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    fields: Vec<(String, String)>,
    /// DATA frames.
    data: Vec<String>,
    trailers: Option<Vec<(String, String)>>,
    /// Nothing may come of it but this: method, path, content.
    pub(crate) meant: Option<(String, String, String)>,
}

impl Request {
    fn of(method: &str, path: &str) -> Self {
        let pseudo = [
            (":method", method),
            (":scheme", "http"),
            (":authority", "{T}"),
            (":path", path),
        ];
        Self {
            fields: owned(&pseudo),
            data: Vec::new(),
            trailers: None,
            meant: None,
        }
    }

    fn with(mut self, fields: &[(&str, &str)]) -> Self {
        self.fields.extend(owned(fields));
        self
    }

    fn data(mut self, pieces: &[&str]) -> Self {
        self.data = pieces.iter().map(|&piece| piece.to_owned()).collect();
        self
    }

    fn trailers(mut self, fields: &[(&str, &str)]) -> Self {
        self.trailers = Some(owned(fields));
        self
    }

    /// It is served, and nothing besides.
    fn served(mut self) -> Self {
        let named = |name: &str| {
            let field = self.fields.iter().find(|(field, _)| field == name);
            field.unwrap().1.clone()
        };
        self.meant = Some((named(":method"), named(":path"), self.data.concat()));
        self
    }

    /// Its fields for this target, the credential behind them.
    fn addressed(&self, target: &str, credential: &str) -> Vec<(String, String)> {
        let fields = self.fields.iter();
        let mut fields: Vec<_> = fields
            .map(|(name, value)| (name.clone(), value.replace("{T}", target)))
            .collect();
        fields.extend(owned(&[("proxy-authorization", credential)]));
        fields
    }
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let fields = fields.iter();
    fields
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// One byte a character.
fn bytes(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect()
}

/// A client that sends such requests, one after the other.
pub(crate) struct Client<'w> {
    world: &'w World,
    session: &'w Session,
    version: Version,
    /// The connection, until the gateway has closed it.
    three: Option<Http3>,
}

impl<'w> Client<'w> {
    pub(crate) fn new(world: &'w World, session: &'w Session, version: Version) -> Self {
        Self {
            world,
            session,
            version,
            three: None,
        }
    }

    /// The status of the answer where it is 200; another number where it is another one, or none.
    pub(crate) async fn send(&mut self, target: &str, request: &Request) -> u16 {
        let credential = format!("Bearer {}", self.session.handle());
        let fields = request.addressed(target, &credential);
        match self.version {
            Version::Two => self.over_two(&fields, request).await,
            Version::Three => self.over_three(&fields, request).await,
        }
    }

    /// On a connection of its own: what breaks the protocol ends it.
    async fn over_two(&self, fields: &[(String, String)], request: &Request) -> u16 {
        let coded = |fields: &[(String, String)]| {
            let fields = fields.iter();
            let fields: Vec<_> = fields.map(|(n, v)| (bytes(n), bytes(v))).collect();
            block(&fields)
        };
        let last = |is: bool| if is { END_STREAM } else { 0 };
        let (data, trailers) = (&request.data, &request.trailers);
        let alone = data.is_empty() && trailers.is_none();
        let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let head = END_HEADERS | last(alone);
        sent.extend(frame(HEADERS, head, 1, &coded(fields)));
        for (at, piece) in data.iter().enumerate() {
            let end = last(at + 1 == data.len() && trailers.is_none());
            sent.extend(frame(DATA, end, 1, &bytes(piece)));
        }
        if let Some(trailers) = trailers {
            let flags = END_HEADERS | END_STREAM;
            sent.extend(frame(HEADERS, flags, 1, &coded(trailers)));
        }
        let mut wire = Wire::dial(self.world.gateway.ports.plain).await;
        wire.send(sent).await;
        within("an answer over HTTP/2", answered(&mut wire)).await
    }

    async fn over_three(&mut self, fields: &[(String, String)], request: &Request) -> u16 {
        let mut http = match self.three.take() {
            Some(http) => http,
            None => Http3::connect(self.world, self.session).await,
        };
        let (data, trailers) = (&request.data, &request.trailers);
        let fields: Vec<_> = fields
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let alone = data.is_empty() && trailers.is_none();
        let stream = http.request(&fields, alone).await;
        for (at, piece) in data.iter().enumerate() {
            let end = at + 1 == data.len() && trailers.is_none();
            http.data(stream, &bytes(piece), end).await;
        }
        if let Some(trailers) = trailers {
            http.tell(json!({"op": "trailers", "stream": stream, "fields": trailers}))
                .await;
        }
        let mut status = 0;
        loop {
            let mine = |e: &Value| e["event"] == "closed" || e["stream"] == stream;
            let event = http.event("an answer over HTTP/3", mine).await;
            match event["event"].as_str().unwrap() {
                "closed" => return status,
                "headers" => {
                    let said = event["fields"][0][1].as_str().unwrap_or_default();
                    // Trailers have no status, an interim answer is none.
                    let said = said.parse().unwrap_or(status);
                    status = if said >= 200 { said } else { status };
                }
                "reset" => break,
                "data" => {}
                // What more it sends is not wanted; its answer comes all the same.
                _ => continue,
            }
            if event["end"] == true {
                break;
            }
        }
        self.three = Some(http);
        status
    }
}

/// 200 where stream 1 is answered so and ends; 0 where it is not.
async fn answered(wire: &mut Wire) -> u16 {
    let mut status = 0;
    loop {
        let Some(head) = taken(wire, 9).await else {
            return status;
        };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some(payload) = taken(wire, length).await else {
            return status;
        };
        let (kind, flags) = (head[3], head[4]);
        match kind {
            // `:status` 200 is entry 8 of the static table, and comes first (RFC 7541 A, RFC 9113 §8.3).
            HEADERS if payload.first() == Some(&0x88) => status = 200,
            RST_STREAM | GOAWAY => return status,
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            return status;
        }
    }
}

/// So many bytes; `None` where the connection ends before.
async fn taken(wire: &mut Wire, count: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        bytes.push(wire.maybe_next().await?);
    }
    Some(bytes)
}

/// Every request of the table, as far as the client can send it: over HTTP/3 its library sends no field without a name, and takes
/// the Content-Length of an answer to HEAD for a fault.
pub(crate) fn requests(version: Version) -> Vec<Request> {
    let mut all: Vec<Request> = served().into_iter().map(Request::served).collect();
    all.extend(lengths());
    all.extend(fields());
    all.extend(lines());
    all.extend(trailers());
    all.retain(|request| {
        let odd = |(name, value): &(String, String)| name.is_empty() || value == "HEAD";
        version == Version::Two || !request.fields.iter().any(odd)
    });
    all
}

/// What is served.
fn served() -> Vec<Request> {
    let length = SMUGGLED.len().to_string();
    let post = |path: &str| Request::of("POST", path).data(&[SMUGGLED]);
    let mut all = vec![
        post("/streams/unsaid"),
        post("/streams/said").with(&[("content-length", &length)]),
        Request::of("PUT", "/streams/pieces").data(&[
            &SMUGGLED[..1],
            &SMUGGLED[1..9],
            &SMUGGLED[9..],
        ]),
        Request::of("POST", "/streams/chunks").data(&["5\r\nhello\r\n", "0\r\n\r\n", SMUGGLED]),
        Request::of("POST", "/streams/empty").data(&[""]),
        Request::of("POST", "/streams/none").with(&[("content-length", "0")]),
        post("/streams/expect").with(&[("content-length", &length), ("expect", "100-continue")]),
        post("/streams/te").with(&[("te", "trailers")]),
        post("/streams/trailers").trailers(&[("x-sum", "GET /smuggled HTTP/1.1")]),
        Request::of("GET", "/streams/get").data(&[SMUGGLED]),
        Request::of("GET", "/streams/crumbs").with(&[
            ("cookie", "a=1"),
            ("cookie", "b=2; c=3"),
            ("cookie", "d=4"),
        ]),
        Request::of("GET", "/streams/marks").with(&[
            ("x-mark", "GET /smuggled HTTP/1.1"),
            ("x-mark", "caf\u{e9}"),
            ("x-mark", ""),
        ]),
        Request::of("GET", "/streams?GET%20/smuggled%20HTTP/1.1%0d%0a%0d%0a"),
        Request::of("GET", "/streams/a//b/../c/%2e%2e/d;p=1/./e"),
        Request::of("GET", "/http://evil.test/"),
        Request::of("GET", "/streams/host").with(&[("host", "{T}")]),
    ];
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        all.push(Request::of(method, "/streams/method"));
    }
    all
}

/// Lengths that are none, or of another content (RFC 9113 §8.1.1, RFC 9114 §4.1.2).
/// Whether content that is whole before too much comes has gone up by then is a matter of time: such are left out.
fn lengths() -> Vec<Request> {
    let (length, long) = (SMUGGLED.len(), SMUGGLED.len() + 1);
    let said = |values: &[&str]| {
        let fields: Vec<_> = values
            .iter()
            .map(|value| ("content-length", *value))
            .collect();
        Request::of("POST", "/lengths").with(&fields)
    };
    let right = length.to_string();
    let mut all = vec![
        said(&["1"]).data(&[SMUGGLED]),
        said(&[&long.to_string()]).data(&[SMUGGLED]),
        said(&["5"]),
        said(&["5"]).data(&[""]),
        said(&["5"]).trailers(&[("x-sum", "1")]),
    ];
    for values in [
        &[&*right, &*right][..],
        &["0", &right],
        &[&right, "0"],
        &[&format!("{right}, {right}")],
        &[&format!("+{right}")],
        &[&format!("000{right}")],
        &[&format!(" {right}")],
        &[&format!("{right}\t")],
        &["0x2e"],
        &["-1"],
        &[""],
        &["99999999999999999999"],
    ] {
        all.push(said(values).data(&[SMUGGLED]));
    }
    all
}

/// Fields of a connection, forged ones, and what HTTP/1 would read as others.
fn fields() -> Vec<Request> {
    let post = |name: &str, value: &str| {
        Request::of("POST", "/fields")
            .with(&[(name, value)])
            .data(&[SMUGGLED])
    };
    let pairs = [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("connection", "close"),
        ("connection", "content-length, host"),
        ("keep-alive", "timeout=1"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABk"),
        ("te", "gzip"),
        ("te", "trailers, chunked"),
        ("expect", "200-ok"),
        ("host", "evil.test"),
        ("host", ""),
        ("content_length", "0"),
        ("transfer_encoding", "chunked"),
        ("x-mark", "a\r\nTransfer-Encoding: chunked"),
        ("x-mark", "a\nContent-Length: 0"),
        ("x-mark", "a\rb"),
        ("x-mark", "a\0b"),
        ("x-mark", " a"),
        ("x-mark", "a "),
        ("X-Mark", "upper"),
        ("x mark", "a"),
        ("x-mark:", "a"),
        ("x-mark: a\r\ntransfer-encoding", "chunked"),
        ("", "a"),
        ("x\u{e9}", "a"),
        (":mark", "a"),
        (":protocol", "websocket"),
        (":path", "/smuggled"),
        (":authority", "evil.test"),
        (":method", "GET"),
        (":status", "200"),
    ];
    let mut all: Vec<_> = pairs
        .iter()
        .map(|(name, value)| post(name, value))
        .collect();
    all.push(post("x-mark", "\u{80}\u{ff}"));
    let both = [("cookie", "a=1\r\nx-mark: b"), ("cookie", "c=2")];
    all.push(Request::of("GET", "/fields/crumbs").with(&both));
    all
}

/// Odd methods, paths, schemes and authorities.
fn lines() -> Vec<Request> {
    let methods = [
        "",
        "get",
        "FOO",
        "TRACE",
        "CONNECT",
        "GET /smuggled HTTP/1.1\r\nX:",
        "GET ",
        "G\u{e9}T",
        "!#$%&'*+-.^_`|~",
    ];
    let mut all: Vec<_> = methods
        .iter()
        .map(|method| Request::of(method, "/lines/method"))
        .collect();
    let paths = [
        "",
        "*",
        "lines",
        "?x=1",
        "//evil.test/",
        "http://evil.test/",
        "/lines a",
        "/lines HTTP/1.1\r\nHost: evil.test\r\n\r\nGET /smuggled",
        "/lines\r\n",
        "/lines\0",
        "/lines\t",
        "/lines#fragment",
        "/lines\u{e9}",
        "/lines?[]{}|^`",
        "/lines\\..\\x",
        "@evil.test/",
    ];
    all.extend(paths.iter().map(|path| Request::of("GET", path)));
    all.push(Request::of("OPTIONS", "*"));
    for (name, value) in [
        (":authority", ""),
        (":authority", "evil.test"),
        (":authority", "user@{T}"),
        (":authority", "{T}, evil.test"),
        (":authority", "{T}\r\nX: y"),
        (":authority", "{T}/x"),
        (":scheme", "HTTP"),
        (":scheme", "ftp"),
        (":scheme", ""),
        (":scheme", "http://evil.test/?"),
    ] {
        let mut request = Request::of("POST", "/lines").data(&[SMUGGLED]);
        for field in &mut request.fields {
            if field.0 == name {
                value.clone_into(&mut field.1);
            }
        }
        all.push(request);
    }
    for gone in [":method", ":scheme", ":authority", ":path"] {
        let mut request = Request::of("GET", "/lines");
        request.fields.retain(|(name, _)| name != gone);
        all.push(request.with(&[("host", "{T}")]));
    }
    // A pseudo-header behind the others.
    let mut late = Request::of("GET", "/lines").with(&[("x-mark", "a")]);
    late.fields.rotate_right(1);
    all.push(late);
    all
}

/// What may not stand in trailers.
fn trailers() -> Vec<Request> {
    [
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("host", "evil.test"),
        ("x-sum", "a\r\n\r\nGET /smuggled HTTP/1.1"),
        (":path", "/smuggled"),
        ("X-Sum", "1"),
        ("", "1"),
    ]
    .map(|field| {
        Request::of("POST", "/trailers")
            .data(&[SMUGGLED])
            .trailers(&[field])
    })
    .into()
}
