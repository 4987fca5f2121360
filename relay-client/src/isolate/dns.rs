//! The name server of the sandbox. It answers with addresses that stand for names, and lets nothing out: no question goes
//! to another name server, whatever is in it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::{A, AAAA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::names::{FRESH, Names, Verdict};
use crate::tasks::Tasks;

/// Questions answered at once; beyond that they are dropped, and asked again.
const AT_ONCE: usize = 256;
/// A message over UDP is never longer than this here.
const LONGEST: usize = 4096;
/// A connection without a question for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// After an accept or a receive that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// What is asked, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Question {
    /// May this name be reached? Lower case, no final dot.
    Name(String),
    /// It needs no question: this code, no records.
    Settled(ResponseCode),
    /// Refused, whatever the name. The gateway is asked all the same: what it denies is in its records.
    Refused(String),
    /// This machine.
    Localhost,
}

/// One message to its answer; `None` where there is nobody to answer.
async fn answer(bytes: &[u8], names: &Names, ipv6: bool) -> Option<Vec<u8>> {
    let asked = match Message::from_vec(bytes) {
        Ok(asked) if asked.metadata.message_type == MessageType::Query => asked,
        // An answer to nothing.
        Ok(_) => return None,
        Err(_) => {
            let id = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
            return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)
                .to_vec()
                .ok();
        }
    };
    let (code, records) = match question(&asked) {
        Question::Settled(code) => (code, Vec::new()),
        Question::Refused(name) => {
            names.ask(&name).await;
            (ResponseCode::Refused, Vec::new())
        }
        Question::Localhost => {
            let here = ([127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST);
            (ResponseCode::NoError, records(&asked, here, ipv6))
        }
        Question::Name(name) => match names.ask(&name).await {
            Verdict::Here(pair) => (
                ResponseCode::NoError,
                records(&asked, (pair.v4, pair.v6), ipv6),
            ),
            Verdict::Nowhere => (ResponseCode::NXDomain, Vec::new()),
            Verdict::Enough => (ResponseCode::Refused, Vec::new()),
            Verdict::Unknown => (ResponseCode::ServFail, Vec::new()),
        },
    };
    reply(&asked, code, records).to_vec().ok()
}

fn question(asked: &Message) -> Question {
    if asked.metadata.op_code != OpCode::Query {
        return Question::Settled(ResponseCode::NotImp);
    }
    let [query] = &asked.queries[..] else {
        return Question::Settled(ResponseCode::FormErr);
    };
    if query.query_class() != DNSClass::IN {
        return Question::Settled(ResponseCode::Refused);
    }
    // Display would turn A-labels into Unicode.
    let name = query.name().to_ascii().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    match query.query_type() {
        // What carries data out where a name server lets it.
        RecordType::TXT | RecordType::NULL | RecordType::ANY => match subject(name) {
            "" => Question::Settled(ResponseCode::Refused),
            subject => Question::Refused(subject.to_owned()),
        },
        // RFC 6761 §6.3.
        _ if name == "localhost" || name.ends_with(".localhost") => Question::Localhost,
        RecordType::PTR => Question::Settled(ResponseCode::NXDomain),
        RecordType::A | RecordType::AAAA if !name.is_empty() => Question::Name(name.to_owned()),
        // Only whether there is such a name. Without HTTPS and SVCB records there are no keys for ECH, no address hints
        // and no HTTP/3 to try.
        _ => match subject(name) {
            "" => Question::Settled(ResponseCode::NoError),
            subject => Question::Name(subject.to_owned()),
        },
    }
}

/// `_http._tcp.api.test` is about `api.test` (RFC 8552).
fn subject(mut name: &str) -> &str {
    while let Some((label, rest)) = name.split_once('.')
        && label.starts_with('_')
    {
        name = rest;
    }
    name
}

fn records(
    asked: &Message,
    (v4, v6): (std::net::Ipv4Addr, std::net::Ipv6Addr),
    ipv6: bool,
) -> Vec<Record> {
    let Some(query) = asked.queries.first() else {
        return Vec::new();
    };
    let data = match query.query_type() {
        RecordType::A => RData::A(A(v4)),
        RecordType::AAAA if ipv6 => RData::AAAA(AAAA(v6)),
        _ => return Vec::new(),
    };
    let ttl = u32::try_from(FRESH.as_secs()).unwrap_or_default();
    vec![Record::from_rdata(query.name().clone(), ttl, data)]
}

fn reply(asked: &Message, code: ResponseCode, records: Vec<Record>) -> Message {
    let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(asked.queries.iter().cloned());
    reply.add_answers(records);
    if asked.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        reply.set_edns(edns);
    }
    reply
}

/// What the servers need. Cheap to clone.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) names: Names,
    /// Is there IPv6 to connect by?
    pub(super) ipv6: bool,
    pub(super) tasks: Tasks,
    pub(super) stop: CancellationToken,
}

impl Server {
    /// Answer datagrams until told to stop.
    pub(super) async fn serve_udp(self, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut buffer = vec![0; LONGEST];
        while let Some(received) = self
            .stop
            .run_until_cancelled(socket.recv_from(&mut buffer))
            .await
        {
            let Ok((length, peer)) = received else {
                // Somebody who asked is gone (ICMP), or there is no memory.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                continue;
            };
            let asked = buffer.get(..length).unwrap_or_default().to_vec();
            let (server, socket) = (self.clone(), socket.clone());
            self.tasks.spawn(async move {
                server.one(&asked, &socket, peer).await;
                drop(place);
            });
        }
    }

    async fn one(&self, asked: &[u8], socket: &UdpSocket, peer: SocketAddr) {
        if let Some(reply) = answer(asked, &self.names, self.ipv6).await {
            // Whoever asked may be gone.
            let _ = socket.send_to(&reply, peer).await;
        }
    }

    /// Answer connections until told to stop.
    pub(super) async fn serve_tcp(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            let (Ok((stream, _)), Ok(place)) = (accepted, places.clone().try_acquire_owned())
            else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let server = self.clone();
            self.tasks.spawn(async move {
                // It ends when its client has no more questions.
                let _ = server.questions(stream).await;
                drop(place);
            });
        }
    }

    async fn questions(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            // RFC 1035 §4.2.2: a length before each message.
            let length = timeout(IDLE, stream.read_u16()).await??;
            let mut asked = vec![0; length.into()];
            timeout(IDLE, stream.read_exact(&mut asked)).await??;
            let Some(reply) = answer(&asked, &self.names, self.ipv6).await else {
                return Ok(());
            };
            let length = u16::try_from(reply.len()).unwrap_or_default();
            stream.write_u16(length).await?;
            stream.write_all(&reply).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use hickory_proto::{
        op::{Message, OpCode, Query, ResponseCode},
        rr::{DNSClass, Name, RecordType},
    };

    use super::{Question, question, records, reply};

    fn asked(name: &str, kind: RecordType) -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    #[test]
    fn what_is_asked_of_the_gateway_and_what_of_nobody() {
        let name = |name: &str| Question::Name(name.to_owned());
        let table = [
            ("Api.Test.", RecordType::A, name("api.test")),
            ("api.test", RecordType::AAAA, name("api.test")),
            ("api.test", RecordType::HTTPS, name("api.test")),
            (
                "xn--bcher-kva.test",
                RecordType::SVCB,
                name("xn--bcher-kva.test"),
            ),
            (
                "c2VjcmV0.evil.test",
                RecordType::TXT,
                Question::Refused("c2vjcmv0.evil.test".into()),
            ),
            (
                "_dmarc.api.test",
                RecordType::TXT,
                Question::Refused("api.test".into()),
            ),
            (
                "api.test",
                RecordType::ANY,
                Question::Refused("api.test".into()),
            ),
            (
                "api.test",
                RecordType::NULL,
                Question::Refused("api.test".into()),
            ),
            (
                ".",
                RecordType::TXT,
                Question::Settled(ResponseCode::Refused),
            ),
            ("api.test", RecordType::MX, name("api.test")),
            ("api.test", RecordType::SOA, name("api.test")),
            ("Api.test", RecordType::NS, name("api.test")),
            ("_http._tcp.api.test", RecordType::SRV, name("api.test")),
            ("_8443._https.api.test", RecordType::HTTPS, name("api.test")),
            ("_x.api.test", RecordType::A, name("_x.api.test")),
            (
                ".",
                RecordType::NS,
                Question::Settled(ResponseCode::NoError),
            ),
            (
                "1.0.18.198.in-addr.arpa",
                RecordType::PTR,
                Question::Settled(ResponseCode::NXDomain),
            ),
            ("localhost", RecordType::A, Question::Localhost),
            ("x.localhost.", RecordType::AAAA, Question::Localhost),
            (".", RecordType::A, Question::Settled(ResponseCode::NoError)),
        ];
        for (name, kind, expected) in table {
            assert_eq!(question(&asked(name, kind)), expected, "{name} {kind}");
        }
        let mut chaos = asked("version.bind", RecordType::A);
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(question(&chaos), Question::Settled(ResponseCode::Refused));
        let mut update = asked("a.test", RecordType::A);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(question(&update), Question::Settled(ResponseCode::NotImp));
        assert_eq!(
            question(&Message::query()),
            Question::Settled(ResponseCode::FormErr)
        );
    }

    #[test]
    fn an_answer_has_the_one_record_and_the_question_as_it_came() {
        let pair = ([198, 18, 0, 1].into(), "fd00::1".parse().unwrap());
        for (kind, ipv6, count) in [
            (RecordType::A, true, 1),
            (RecordType::AAAA, true, 1),
            (RecordType::AAAA, false, 0),
            (RecordType::HTTPS, true, 0),
        ] {
            let asked = asked("API.test.", kind);
            let reply = reply(&asked, ResponseCode::NoError, records(&asked, pair, ipv6));
            let reply = Message::from_vec(&reply.to_vec().unwrap()).unwrap();
            assert_eq!(reply.answers.len(), count, "{kind} {ipv6}");
            assert_eq!(reply.queries[0].name().to_ascii(), "API.test.");
            assert_eq!(reply.metadata.id, asked.metadata.id);
            assert!(reply.edns.is_none());
        }
    }
}
