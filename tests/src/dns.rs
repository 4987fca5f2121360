//! A DNS server under the test's control, whose query log is the witness that a denied name was never asked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::{HeaderCounts, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

/// What the server says about one name.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These addresses, by family; the other family gets an empty answer.
    Addresses(Vec<IpAddr>),
    /// A CNAME, with the records of its target where this server knows them.
    Alias(String),
    /// A CNAME and nothing else: its target has to be asked for.
    AliasAlone(String),
    /// A CNAME, and addresses of the same name beside it.
    AliasBeside(String, Vec<IpAddr>),
    /// NXDOMAIN.
    Missing,
    /// This code, and these addresses beside it all the same.
    CodeBeside(ResponseCode, Vec<IpAddr>),
    /// NXDOMAIN with the authority record that says how long that may be believed (RFC 2308 §5).
    Gone,
    /// SERVFAIL.
    Failing,
    /// No reply at all.
    Silent,
    /// Truncated over UDP, and no reply over TCP.
    Truncated,
    /// These addresses where IPv4 is asked for; no reply to a question for IPv6.
    SilentSix(Vec<IpAddr>),
}

#[derive(Default)]
struct Zone {
    answers: HashMap<String, (Answer, u32)>,
    log: Vec<(String, RecordType)>,
}

/// A running DNS server on one loopback port, UDP and TCP. It stops when dropped.
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _server: Server<Authority>,
}

impl Dns {
    /// Starts with an empty zone: every name is NXDOMAIN until [`Dns::set`].
    pub async fn start() -> Self {
        let (udp, tcp) = one_port_twice().await;
        let address = tcp.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let mut server = Server::new(Authority(Arc::clone(&zone)));
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(30), 64);
        Self {
            address,
            zone,
            _server: server,
        }
    }

    /// Answers `name` with `answer` from now on, with a TTL of 0 so that a later change is seen at once.
    pub fn set(&self, name: &str, answer: Answer) {
        self.set_with_ttl(name, answer, 0);
    }

    /// As [`Dns::set`], with a TTL in seconds.
    pub fn set_with_ttl(&self, name: &str, answer: Answer, ttl: u32) {
        let mut zone = self.zone.lock().unwrap();
        zone.answers.insert(name.to_owned(), (answer, ttl));
    }

    /// Shorthand: `name` is one loopback address.
    pub fn point(&self, name: &str) {
        self.set(name, Answer::Addresses(vec![IpAddr::from([127, 0, 0, 1])]));
    }

    /// How often `name` was asked for, whatever the record type.
    pub fn queries_for(&self, name: &str) -> usize {
        let zone = self.zone.lock().unwrap();
        zone.log.iter().filter(|(asked, _)| asked == name).count()
    }

    /// Every query so far, in order: lower-case name without the final dot, and type.
    pub fn queries(&self) -> Vec<(String, RecordType)> {
        self.zone.lock().unwrap().log.clone()
    }
}

/// UDP and TCP on the same port number: the second bind may lose a race, so it is tried anew.
async fn one_port_twice() -> (UdpSocket, TcpListener) {
    for _ in 0..32 {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no loopback port is free for UDP and TCP at once");
}

struct Authority(Arc<Mutex<Zone>>);

struct Reply {
    code: ResponseCode,
    records: Vec<Record>,
    authority: Vec<Record>,
    truncated: bool,
}

impl Zone {
    /// None: stay silent.
    fn reply(&mut self, name: &str, kind: RecordType, over_tcp: bool) -> Option<Reply> {
        self.log.push((name.to_owned(), kind));
        let mut reply = Reply {
            code: ResponseCode::NoError,
            records: Vec::new(),
            authority: Vec::new(),
            truncated: false,
        };
        let mut current = name.to_owned();
        let mut beside = Vec::new();
        // A loop of aliases is answered as far as a real resolver would carry it in one message.
        for _ in 0..16 {
            let owner = Name::from_str(&format!("{current}.")).ok()?;
            let known = self.answers.get(&current).cloned();
            let (answer, ttl) = known.unwrap_or((Answer::Missing, 0));
            if let (Answer::AliasBeside(_, addresses), true) = (&answer, beside.is_empty()) {
                let data = addresses.iter().filter_map(|ip| data_of(*ip, kind));
                let records = data.map(|data| Record::from_rdata(owner.clone(), ttl, data));
                beside.extend(records);
            }
            if let Answer::CodeBeside(code, _) = &answer {
                reply.code = *code;
            }
            match answer {
                Answer::Silent => return None,
                Answer::Truncated if over_tcp => return None,
                Answer::Truncated => reply.truncated = true,
                Answer::SilentSix(_) if kind == RecordType::AAAA => return None,
                Answer::Failing => reply.code = ResponseCode::ServFail,
                Answer::Missing => reply.code = ResponseCode::NXDomain,
                Answer::Gone => {
                    reply.code = ResponseCode::NXDomain;
                    let soa = SOA::new(owner.clone(), owner.clone(), 1, 60, 60, 60, ttl);
                    reply
                        .authority
                        .push(Record::from_rdata(owner, ttl, RData::SOA(soa)));
                }
                Answer::Addresses(addresses)
                | Answer::SilentSix(addresses)
                | Answer::CodeBeside(_, addresses) => {
                    let data = addresses.into_iter().filter_map(|ip| data_of(ip, kind));
                    let records = data.map(|data| Record::from_rdata(owner.clone(), ttl, data));
                    reply.records.extend(records);
                }
                Answer::AliasAlone(target) => {
                    let to = Name::from_str(&format!("{target}.")).ok()?;
                    let data = RData::CNAME(CNAME(to));
                    reply.records.push(Record::from_rdata(owner, ttl, data));
                }
                Answer::Alias(target) | Answer::AliasBeside(target, _) => {
                    let to = Name::from_str(&format!("{target}.")).ok()?;
                    let data = RData::CNAME(CNAME(to));
                    reply.records.push(Record::from_rdata(owner, ttl, data));
                    current = target;
                    continue;
                }
            }
            break;
        }
        reply.records.extend(beside);
        Some(reply)
    }
}

fn data_of(address: IpAddr, kind: RecordType) -> Option<RData> {
    match (address, kind) {
        (IpAddr::V4(v4), RecordType::A) => Some(RData::A(A(v4))),
        (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(AAAA(v6))),
        _ => None,
    }
}

#[async_trait]
impl RequestHandler for Authority {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut responses: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        let asked = request.request_info().map(|info| {
            // Display would turn A-labels into Unicode.
            let name = Name::from(info.query.name()).to_ascii();
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            (name, info.query.query_type())
        });
        let over_tcp = request.protocol() == Protocol::Tcp;
        let reply = match asked {
            Ok((name, kind)) => self.0.lock().unwrap().reply(&name, kind, over_tcp),
            Err(_) => None,
        };
        if let Some(reply) = reply {
            metadata.response_code = reply.code;
            metadata.truncation = reply.truncated;
            let builder = MessageResponseBuilder::from_message_request(request);
            let message = builder.build(metadata, &reply.records, [], &reply.authority, []);
            if let Ok(info) = responses.send_response(message).await {
                return info;
            }
        }
        let counts = HeaderCounts::default();
        hickory_proto::op::Header { metadata, counts }.into()
    }
}
