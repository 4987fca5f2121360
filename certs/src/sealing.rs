//! Records of TLS 1.3 sealed out of what is sent. rustls' own encrypter copies that into the record and seals the copy in its place: on
//! some processors the copy, whose target begins behind a record's head and so is never aligned, costs as much as the cipher.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, Nonce, TlsProtocolId, TlsRecordSealingKey,
};
use rustls::{
    CipherSuite, CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion,
    SupportedCipherSuite, Tls13CipherSuite,
    crypto::cipher::{
        self, AeadKey, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
        OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
        UnsupportedOperationError, make_tls13_aad,
    },
};

/// A shorter record is copied: that is no more than to make room for it.
const LEAST: usize = 2048;

/// The same suite. With AES-GCM its records of TLS 1.3 are sealed here; QUIC's packets, and what is opened, are as they were. For the life
/// of the process: a suite is never given back.
pub(crate) fn suite(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(of) = suite else {
        return suite;
    };
    let algorithm = match of.common.suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => &AES_128_GCM,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => &AES_256_GCM,
        _ => return suite,
    };
    let theirs = of.aead_alg;
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: of.common.suite,
            hash_provider: of.common.hash_provider,
            confidentiality_limit: of.common.confidentiality_limit,
        },
        hkdf_provider: of.hkdf_provider,
        aead_alg: Box::leak(Box::new(Aead { algorithm, theirs })),
        quic: of.quic,
    })))
}

/// rustls' algorithm, but for what seals.
struct Aead {
    algorithm: &'static Algorithm,
    theirs: &'static dyn Tls13AeadAlgorithm,
}

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        match TlsRecordSealingKey::new(self.algorithm, TlsProtocolId::TLS13, key.as_ref()) {
            Ok(key) => Box::new(Sealer { key, iv }),
            // Only of a key that is not as long as it says: whatever rustls makes of that.
            Err(_) => self.theirs.encrypter(key, iv),
        }
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.theirs.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.theirs.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.theirs.extract_keys(key, iv)
    }

    fn fips(&self) -> bool {
        self.theirs.fips()
    }
}

/// One direction's key. No nonce is used twice: rustls numbers records from 0 for each key (RFC 8446 §5.3), and aws-lc refuses a number
/// that does not grow.
struct Sealer {
    key: TlsRecordSealingKey,
    iv: Iv,
}

impl MessageEncrypter for Sealer {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        number: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let length = self.encrypted_payload_len(message.payload.len());
        let nonce = Nonce::assume_unique_for_key(cipher::Nonce::new(&self.iv, number).0);
        let aad = Aad::from(make_tls13_aad(length));
        // TLSInnerPlaintext's type, behind the content and sealed with it (RFC 8446 §5.2).
        let kind = [u8::from(message.typ)];
        let mut record = PrefixedPayload::with_capacity(length);
        let sealed = match uncopied(&message.payload) {
            Some(content) => {
                record.extend(std::iter::repeat_n(&0, length));
                let (sealed, rest) = record.as_mut().split_at_mut(content.len());
                self.key
                    .seal_out_of_place_scatter(nonce, aad, content, sealed, &kind, rest)
            }
            None => {
                record.extend_from_chunks(&message.payload);
                record.extend_from_slice(&kind);
                self.key.seal_in_place_append_tag(nonce, aad, &mut record)
            }
        };
        sealed.map_err(|_| Error::EncryptError)?;
        Ok(OutboundOpaqueMessage::new(
            ContentType::ApplicationData,
            // What a record of TLS 1.3 says (RFC 8446 §5.2).
            ProtocolVersion::TLSv1_2,
            record,
        ))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        length + 1 + self.key.algorithm().tag_len()
    }
}

/// What is sealed without a copy.
fn uncopied<'p>(payload: &OutboundChunks<'p>) -> Option<&'p [u8]> {
    whole(payload).filter(|content| content.len() >= LEAST)
}

/// The payload where it is in one piece.
fn whole<'p>(payload: &OutboundChunks<'p>) -> Option<&'p [u8]> {
    match *payload {
        OutboundChunks::Single(chunk) => Some(chunk),
        OutboundChunks::Multiple { chunks, start, end } => {
            let mut before = 0;
            for chunk in chunks {
                let after = before + chunk.len();
                if start < after {
                    return chunk.get(start.checked_sub(before)?..end.checked_sub(before)?);
                }
                before = after;
            }
            None
        }
    }
}

#[cfg(test)]
mod tests;
