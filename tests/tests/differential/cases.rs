//! Accepted forms of a request, odd ones among them. Each content holds a request that nobody may see as one.

use crate::stage::{Input, Way};

/// What a smuggled request looks like.
pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n";

/// A request as it is sent, and as it is meant.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    fields: Vec<u8>,
    content: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) marks: Vec<String>,
}

/// Requests for one connection, sent in one write.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) requests: Vec<Asked>,
}

/// Whether a reader may refuse this target: odd, though legal.
pub(crate) fn loose(target: &str) -> bool {
    target.starts_with("/odd")
}

impl Case {
    fn new(method: &str, target: &str) -> Self {
        let asked = Asked {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            content: Vec::new(),
            body: Vec::new(),
            marks: Vec::new(),
        };
        let after = Asked {
            method: "GET".to_owned(),
            target: "/after".to_owned(),
            ..asked.clone()
        };
        Self {
            requests: vec![asked, after],
        }
    }

    fn fields(mut self, fields: impl AsRef<[u8]>) -> Self {
        self.requests[0].fields.extend_from_slice(fields.as_ref());
        self
    }

    fn marks(mut self, marks: &[&str]) -> Self {
        let marks = marks.iter().map(|&mark| mark.to_owned());
        self.requests[0].marks = marks.collect();
        self
    }

    /// A content with a length.
    fn sized(self, body: impl AsRef<[u8]>) -> Self {
        let length = format!("Content-Length: {}\r\n", body.as_ref().len());
        self.framed(&length, body.as_ref(), body.as_ref())
    }

    /// A chunked content, `wire` as it is sent.
    fn chunked(self, wire: impl AsRef<[u8]>) -> Self {
        let body = SMUGGLED.as_bytes();
        self.framed("Transfer-Encoding: chunked\r\n", wire.as_ref(), body)
    }

    fn framed(self, fields: &str, content: &[u8], body: &[u8]) -> Self {
        let mut case = self.fields(fields);
        case.requests[0].content = content.to_vec();
        case.requests[0].body = body.to_vec();
        case
    }

    /// The bytes of these requests, to come in this way.
    pub(crate) fn input(&self, way: Way) -> Input {
        let mut bytes = Vec::new();
        for asked in &self.requests {
            let line = format!("{} {{U}}{} HTTP/1.1\r\n", asked.method, asked.target);
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"Host: {T}\r\n{A}");
            bytes.extend_from_slice(&asked.fields);
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(&asked.content);
        }
        let methods = self.requests.iter().map(|asked| asked.method.clone());
        Input::served(bytes, way, methods.collect())
    }
}

/// Every ordinary case on one connection.
pub(crate) fn pipeline(cases: &[Case]) -> Case {
    let requests = cases.iter().flat_map(|case| case.requests.clone());
    let mut requests: Vec<Asked> = requests.collect();
    requests.retain(|asked| !loose(&asked.target));
    Case { requests }
}

/// Everything the gateway serves.
pub(crate) fn written() -> Vec<Case> {
    let mut cases = plain();
    cases.extend(sized());
    cases.extend(chunked());
    cases.extend(fields());
    cases.extend(odd());
    cases
}

fn plain() -> Vec<Case> {
    let targets = [
        "/",
        "/plain?x=1",
        "/q?GET%20/smuggled%20HTTP/1.1%0d%0a%0d%0a",
        "/q?a=%00%ff&b=+&c='(),;:@!$*~&d=//",
        "/a//b/../c/%2e%2e/d;p=1/./e",
        "/%2f%5c%3f%23",
        "/*",
        "/http://evil.test/",
        "/?",
        "/??x=http://evil.test:80/?",
    ];
    let mut cases: Vec<Case> = targets
        .iter()
        .map(|target| Case::new("GET", target))
        .collect();
    for method in ["HEAD", "OPTIONS", "DELETE"] {
        cases.push(Case::new(method, "/method"));
    }
    cases
}

fn sized() -> Vec<Case> {
    let mut cases = vec![
        Case::new("POST", "/empty").sized(""),
        Case::new("PUT", "/large").sized(SMUGGLED.repeat(2_000)),
        Case::new("POST", "/expect")
            .fields("Expect: 100-continue\r\n")
            .sized(SMUGGLED),
        Case::new("POST", "/close-list")
            .fields("Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\n")
            .sized(SMUGGLED),
        Case::new("POST", "/zeros").framed(
            &format!("Content-Length: 000{}\r\n", SMUGGLED.len()),
            SMUGGLED.as_bytes(),
            SMUGGLED.as_bytes(),
        ),
        Case::new("POST", "/last-chunk").sized(format!("0\r\n\r\n{SMUGGLED}")),
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET"] {
        cases.push(Case::new(method, "/sized").sized(SMUGGLED));
    }
    cases
}

/// `SMUGGLED` in chunks of `size` bytes, without the last one.
fn chunks(size: usize) -> String {
    let parts = SMUGGLED.as_bytes().chunks(size);
    let parts = parts.map(|part| {
        let text = std::str::from_utf8(part).unwrap();
        format!("{:x}\r\n{text}\r\n", part.len())
    });
    parts.collect()
}

fn chunked() -> Vec<Case> {
    let (whole, length) = (chunks(1_000), SMUGGLED.len());
    let post = |target: &str, wire: String| Case::new("POST", target).chunked(wire);
    let forbidden = "Content-Length: 5\r\nHost: evil.test\r\nTransfer-Encoding: chunked\r\nAuthorization: x\r\n";
    vec![
        post("/chunked/bytes", format!("{}0\r\n\r\n", chunks(1))),
        post("/chunked/sevens", format!("{}000\r\n\r\n", chunks(7))),
        post(
            "/chunked/upper",
            format!("00{length:X}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        ),
        post(
            "/chunked/extended",
            format!("{length:x};name=value;a=\"b\"\r\n{SMUGGLED}\r\n0;last\r\n\r\n"),
        ),
        post("/chunked/trailer", format!("{whole}0\r\nX-Sum: 1\r\n\r\n"))
            .fields("Trailer: X-Sum\r\n"),
        post(
            "/chunked/unannounced",
            format!("{whole}0\r\nX-Sum: GET /smuggled HTTP/1.1\r\n\r\n"),
        ),
        Case::new("GET", "/chunked/get").chunked(format!("{whole}0\r\n\r\n")),
        post("/chunked/forbidden", format!("{whole}0\r\n{forbidden}\r\n")),
        post("/chunked/te", format!("{whole}0\r\n\r\n"))
            .fields("TE: trailers\r\nConnection: TE\r\n"),
        Case::new("POST", "/chunked/case").framed(
            "Transfer-Encoding: Chunked\r\n",
            format!("{whole}0\r\n\r\n").as_bytes(),
            SMUGGLED.as_bytes(),
        ),
        Case::new("DELETE", "/chunked/delete").chunked(format!("{whole}0\r\n\r\n")),
        Case::new("POST", "/chunked/empty").framed(
            "Transfer-Encoding: chunked\r\n",
            b"0\r\n\r\n",
            b"",
        ),
    ]
}

fn fields() -> Vec<Case> {
    let long = "x".repeat(7_000);
    let many: String = (0..80)
        .map(|number| format!("X-Field-{number}: {number}\r\n"))
        .collect();
    let get = |target: &str| Case::new("GET", target);
    let post = |target: &str| Case::new("POST", target).sized(SMUGGLED);
    vec![
        get("/fields/obs-text")
            .fields(b"X-Mark: caf\xe9 \xff\x80\r\n")
            .marks(&["caf\u{e9} \u{ff}\u{80}"]),
        get("/fields/twice")
            .fields("X-Mark: a\r\nX-Other: 1\r\nx-mark: b\r\n")
            .marks(&["a", "b"]),
        get("/fields/cookies")
            .fields("Cookie: a=1\r\nCookie: b=2\r\nAccept: a/b\r\nAccept: c/d\r\n"),
        get("/fields/empty")
            .fields("X-Mark:\r\nX-Mark: \t\r\n")
            .marks(&["", ""]),
        get("/fields/tabs")
            .fields("X-Mark: \ta\t \tb\t \r\n")
            .marks(&["a\t \tb"]),
        get("/fields/line")
            .fields("X-Mark: GET /smuggled HTTP/1.1\r\n")
            .marks(&["GET /smuggled HTTP/1.1"]),
        get("/fields/long")
            .fields(format!("X-Mark: {long}\r\n"))
            .marks(&[&long]),
        get("/fields/many").fields(many),
        get("/fields/tokens").fields("!#$%&'*+-.^`|~1: x\r\n"),
        post("/fields/twins")
            .fields("X-Transfer-Encoding: chunked\r\nTransfer-Encoding-X: chunked\r\n"),
        post("/fields/underscores").fields("Transfer_Encoding: chunked\r\nContent_Length: 0\r\n"),
        post("/fields/hop").fields("Keep-Alive: timeout=1\r\nProxy-Connection: keep-alive\r\n"),
        post("/fields/nominated").fields("Connection: Content-Length, Host\r\n"),
        post("/fields/upgrade").fields(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        ),
        post("/fields/override")
            .fields("X-HTTP-Method-Override: GET\r\nContent-Encoding: chunked\r\n"),
    ]
}

/// Legal, and more than some readers take.
fn odd() -> Vec<Case> {
    let methods = [
        "PROPFIND",
        "M-SEARCH",
        "PURGE",
        "TRACE",
        "FOO",
        "get",
        "!#$%&'*+-.^_`|~",
    ];
    let cases = methods.map(|method| Case::new(method, "/odd/method"));
    let targets = ["/odd/q?[]{}|^`", "/odd/~!*'()"];
    let targets = targets.map(|target| Case::new("GET", target));
    let body = Case::new("FOO", "/odd/body").sized(SMUGGLED);
    let cases = cases.into_iter().chain(targets).chain([body]);
    // A refusal may end the connection: nothing comes after.
    let alone = cases.map(|mut case| {
        case.requests.truncate(1);
        case
    });
    alone.collect()
}
