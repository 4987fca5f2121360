//! What name servers answer, judged as it arrives and before any of it is kept: the response code decides.
//!
//! The cache is no place for that. It keeps the answer of an alias without the code of where it led, and, where the rest of the
//! way was known already, without the way.

use std::{net::IpAddr, pin::Pin};

use hickory_resolver::{
    ConnectionProvider, PoolContext,
    config::ConnectionConfig,
    net::{
        NetError,
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle, DnsResponseStream, FirstAnswer},
    },
    proto::{
        op::{DnsRequest, DnsResponse, Message, ResponseCode},
        rr::{Record, RecordType},
    },
};

/// Connections to name servers.
#[derive(Clone, Default)]
pub(super) struct Connections(TokioRuntimeProvider);

/// A connection to a name server.
#[derive(Clone)]
pub(super) struct Connection(<TokioRuntimeProvider as ConnectionProvider>::Conn);

impl ConnectionProvider for Connections {
    type Conn = Connection;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Connection, NetError>> + Send + 'static>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        cx: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let connecting = self.0.new_connection(ip, config, cx)?;
        Ok(Box::pin(async move { connecting.await.map(Connection) }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.0
    }
}

impl DnsHandle for Connection {
    type Response = DnsResponseStream;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> DnsResponseStream {
        let answer = self.0.send(request).first_answer();
        DnsResponseStream::from(Box::pin(async move { answer.await.map(by_its_code) }))
    }
}

/// What stands beside "no such name" is no address. Aliases may stand there: the code is then that of the name they lead to
/// (RFC 6604 §3), which is asked for by itself. Beside any other failure stands nothing.
fn by_its_code(mut answer: DnsResponse) -> DnsResponse {
    let code = answer.response_code;
    let stays: fn(&Record) -> bool = match code {
        ResponseCode::NoError => return answer,
        ResponseCode::NXDomain => |record: &Record| record.record_type() == RecordType::CNAME,
        _ => |_: &Record| false,
    };
    let message: &mut Message = &mut answer;
    message.answers.retain(stays);
    // Addresses are looked for here too.
    for section in [&mut message.authorities, &mut message.additionals] {
        section.retain(|record| !record.record_type().is_ip_addr());
    }
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]

    use hickory_resolver::proto::{
        op::{DnsResponse, Message, OpCode, ResponseCode},
        rr::{
            Name, RData, Record,
            rdata::{A, CNAME},
        },
    };

    use super::by_its_code;

    fn answer(code: ResponseCode) -> DnsResponse {
        let name = |text: &str| Name::from_ascii(text).expect("name");
        let address = || {
            let a = RData::A(A::new(127, 0, 0, 1));
            Record::from_rdata(name("b.test."), 300, a)
        };
        let alias = RData::CNAME(CNAME(name("b.test.")));
        let mut message = Message::response(0, OpCode::Query);
        message.metadata.response_code = code;
        message.add_answers([Record::from_rdata(name("a.test."), 300, alias), address()]);
        message.add_authorities([address()]);
        message.add_additionals([address()]);
        DnsResponse::from_message(message).expect("a response")
    }

    #[test]
    fn addresses_stand_beside_no_error_alone() {
        for (code, answers, beside) in [
            (ResponseCode::NoError, 2, 1),
            (ResponseCode::NXDomain, 1, 0),
            (ResponseCode::ServFail, 0, 0),
            (ResponseCode::Unknown(12), 0, 0),
        ] {
            let judged = by_its_code(answer(code));
            assert_eq!(judged.response_code, code);
            assert_eq!(judged.answers.len(), answers, "{code}");
            assert_eq!(judged.authorities.len(), beside, "{code}");
            assert_eq!(judged.additionals.len(), beside, "{code}");
        }
    }
}
