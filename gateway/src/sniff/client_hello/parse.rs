//! One whole ClientHello body, read field by field (RFC 8446 §4.1.2). Every length must fit exactly.

use super::{ClientHello, HelloError, Sni};

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// Its drafts: ESNI (draft-ietf-tls-esni-02 to -06), then ECH (-08 to -12). What still speaks them hides a name all the same.
const ENCRYPTED_NAME_DRAFTS: [u16; 8] = [
    0xffce, 0xff02, 0xff03, 0xfe08, 0xfe09, 0xfe0a, 0xfe0b, 0xfe0c,
];

/// Protocols kept of an ALPN list; clients offer two or three.
const MAX_PROTOCOLS: usize = 32;
/// Longest name kept, in bytes: longer ones are no host names (RFC 1035 §2.3.4), with a trailing dot or without.
const MAX_NAME: usize = 255;

/// A cursor over bytes not yet read.
#[derive(Clone, Copy)]
struct Field<'m>(&'m [u8]);

impl<'m> Field<'m> {
    fn take(&mut self, count: usize, name: &'static str) -> Result<&'m [u8], HelloError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(HelloError::Field(name))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self, name: &'static str) -> Result<u8, HelloError> {
        self.take(1, name)?
            .first()
            .copied()
            .ok_or(HelloError::Field(name))
    }

    fn u16(&mut self, name: &'static str) -> Result<u16, HelloError> {
        let bytes = self
            .take(2, name)?
            .first_chunk::<2>()
            .ok_or(HelloError::Field(name))?;
        Ok(u16::from_be_bytes(*bytes))
    }

    /// A vector with a one-byte length.
    fn short(&mut self, name: &'static str) -> Result<Field<'m>, HelloError> {
        let length = usize::from(self.u8(name)?);
        self.take(length, name).map(Field)
    }

    /// A vector with a two-byte length.
    fn long(&mut self, name: &'static str) -> Result<Field<'m>, HelloError> {
        let length = usize::from(self.u16(name)?);
        self.take(length, name).map(Field)
    }

    fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn end(self, name: &'static str) -> Result<(), HelloError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(HelloError::Field(name))
        }
    }
}

/// Parse the body of a ClientHello message.
pub(in super::super) fn parse(body: &[u8]) -> Result<ClientHello, HelloError> {
    let mut rest = Field(body);
    let legacy_version = rest.u16("legacy_version")?;
    if legacy_version < 0x0300 {
        return Err(HelloError::HelloVersion);
    }
    rest.take(32, "random")?;
    if rest.short("legacy_session_id")?.0.len() > 32 {
        return Err(HelloError::Field("legacy_session_id"));
    }
    let suites = rest.long("cipher_suites")?.0;
    if suites.is_empty() || !suites.len().is_multiple_of(2) {
        return Err(HelloError::Field("cipher_suites"));
    }
    if rest.short("legacy_compression_methods")?.is_empty() {
        return Err(HelloError::Field("legacy_compression_methods"));
    }
    let mut hello = ClientHello {
        sni: None,
        ech: false,
        ech_draft: false,
        alpn: Vec::new(),
        legacy_version,
        supported_versions: Vec::new(),
        early_data: false,
    };
    // RFC 5246 §7.4.1.2: the block may be absent altogether.
    if !rest.is_empty() {
        let block = rest.long("extensions")?;
        rest.end("extensions")?;
        read_extensions(block, &mut hello)?;
    }
    Ok(hello)
}

fn read_extensions(mut block: Field<'_>, hello: &mut ClientHello) -> Result<(), HelloError> {
    let (mut alpn, mut versions) = (false, false);
    while !block.is_empty() {
        let kind = block.u16("extension")?;
        let content = block.long("extension")?;
        match kind {
            SERVER_NAME => {
                once(hello.sni.is_some(), "server_name")?;
                hello.sni = Some(read_server_name(content)?);
            }
            ENCRYPTED_CLIENT_HELLO => {
                once(hello.ech, "encrypted_client_hello")?;
                hello.ech = true;
            }
            draft if ENCRYPTED_NAME_DRAFTS.contains(&draft) => hello.ech_draft = true,
            ALPN => {
                once(alpn, "application_layer_protocol_negotiation")?;
                alpn = true;
                hello.alpn = read_alpn(content)?;
            }
            SUPPORTED_VERSIONS => {
                once(versions, "supported_versions")?;
                versions = true;
                hello.supported_versions = read_versions(content)?;
            }
            EARLY_DATA => {
                once(hello.early_data, "early_data")?;
                hello.early_data = true;
            }
            _ => {}
        }
    }
    Ok(())
}

/// RFC 8446 §4.2: an extension occurs once. A second one is where two readers differ.
fn once(seen: bool, name: &'static str) -> Result<(), HelloError> {
    if seen {
        Err(HelloError::Repeated(name))
    } else {
        Ok(())
    }
}

/// RFC 6066 §3: a non-empty list of names, one per type; host_name (0) is the only type there is.
fn read_server_name(mut content: Field<'_>) -> Result<Sni, HelloError> {
    const NAME: &str = "server_name";
    let mut list = content.long(NAME)?;
    content.end(NAME)?;
    if list.u8(NAME)? != 0 {
        return Err(HelloError::Field(NAME));
    }
    let name = list.long(NAME)?.0;
    if !list.is_empty() {
        return Err(if list.u8(NAME)? == 0 {
            HelloError::TwoNames
        } else {
            HelloError::Field(NAME)
        });
    }
    Ok(read_name(name))
}

fn read_name(name: &[u8]) -> Sni {
    let labels = name.strip_suffix(b".").unwrap_or(name);
    let sound = name.len() <= MAX_NAME
        && labels
            .split(|&b| b == b'.')
            .all(|label| !label.is_empty() && label.iter().all(u8::is_ascii_graphic));
    match std::str::from_utf8(name) {
        Ok(text) if sound => Sni::Name(text.to_owned()),
        _ => Sni::Malformed,
    }
}

fn read_alpn(mut content: Field<'_>) -> Result<Vec<Box<[u8]>>, HelloError> {
    const NAME: &str = "application_layer_protocol_negotiation";
    let mut list = content.long(NAME)?;
    content.end(NAME)?;
    if list.is_empty() {
        return Err(HelloError::Field(NAME));
    }
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let protocol = list.short(NAME)?.0;
        if protocol.is_empty() {
            return Err(HelloError::Field(NAME));
        }
        if protocols.len() < MAX_PROTOCOLS {
            protocols.push(protocol.into());
        }
    }
    Ok(protocols)
}

fn read_versions(mut content: Field<'_>) -> Result<Vec<u16>, HelloError> {
    const NAME: &str = "supported_versions";
    let mut list = content.short(NAME)?;
    content.end(NAME)?;
    let mut versions = Vec::with_capacity(list.0.len() / 2);
    while !list.is_empty() {
        versions.push(list.u16(NAME)?);
    }
    if versions.is_empty() {
        Err(HelloError::Field(NAME))
    } else {
        Ok(versions)
    }
}
