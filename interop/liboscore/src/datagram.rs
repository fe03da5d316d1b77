//! CoAP over UDP, as far as a peer needs it.
use crate::Res;
use coap_message::{MessageOption, MinimalWritableMessage, ReadableMessage};
use coap_message_implementations::{inmemory, inmemory_write::Message};

pub const IF_MATCH: u16 = 1;
pub const ETAG: u16 = 4;
pub const IF_NONE_MATCH: u16 = 5;
pub const OBSERVE: u16 = 6;
pub const OSCORE: u16 = 9;
pub const URI_PATH: u16 = 11;
pub const CONTENT_FORMAT: u16 = 12;
pub const MAX_AGE: u16 = 14;
pub const URI_QUERY: u16 = 15;
pub const ACCEPT: u16 = 17;
pub const ECHO: u16 = 252;
/// What libOSCORE reports, for ever, in place of an option it does not know.
pub const INVALID: u16 = 65535;

pub const CON: u8 = 0;
pub const NON: u8 = 1;
pub const ACK: u8 = 2;
pub const CONTENT: u8 = 0x45;

pub type Options = Vec<(u16, Vec<u8>)>;

/// The shortest form of a CoAP uint.
pub fn uint(n: u32) -> Vec<u8> {
    n.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect()
}

pub fn dotted(code: u8) -> String {
    format!("{}.{:02}", code >> 5, code & 31)
}

/// Code, options and payload of a message that was taken apart.
#[derive(Clone, Default)]
pub struct Content {
    pub code: u8,
    pub options: Options,
    pub payload: Vec<u8>,
}

impl Content {
    pub fn new(code: u8, options: Options, payload: &[u8]) -> Self {
        Content { code, options, payload: payload.to_vec() }
    }

    /// Options up to the first unreadable one, which is kept as INVALID.
    pub fn read(m: &impl ReadableMessage<Code = u8>) -> Self {
        let mut c = Content { code: m.code(), ..Content::default() };
        for o in m.options() {
            c.options.push((o.number(), o.value().to_vec()));
            if o.number() == INVALID {
                break;
            }
        }
        c.payload = m.payload().to_vec();
        c
    }

    pub fn option(&self, number: u16) -> Option<&[u8]> {
        self.options.iter().find(|o| o.0 == number).map(|o| &o.1[..])
    }

    pub fn path(&self) -> String {
        let parts = self.options.iter().filter(|o| o.0 == URI_PATH);
        parts.map(|o| format!("/{}", String::from_utf8_lossy(&o.1))).collect()
    }

    pub fn write<M: MinimalWritableMessage<Code = u8, OptionNumber = u16>>(&self, m: &mut M) -> Res<()> {
        m.set_code(self.code);
        for (n, v) in &self.options {
            m.add_option(*n, v).map_err(|e| format!("option {n}: {e:?}"))?;
        }
        m.set_payload(&self.payload).map_err(|e| format!("payload: {e:?}"))
    }

    pub fn tail(&self) -> Res<Vec<u8>> {
        Ok(build(|m| self.write(m))?.1)
    }
}

/// Runs `f` on an empty message; gives its code, its options-and-payload bytes and f's result.
pub fn build<R>(f: impl FnOnce(&mut Message<'_>) -> Res<R>) -> Res<(u8, Vec<u8>, R)> {
    let (mut code, mut buf) = (0u8, vec![0u8; 1400]);
    let mut m = Message::new(&mut code, &mut buf);
    let r = f(&mut m)?;
    let n = m.finish();
    buf.truncate(n);
    Ok((code, buf, r))
}

/// A CoAP datagram taken apart; `tail` is options, payload marker and payload.
#[derive(Clone)]
pub struct Datagram {
    pub typ: u8,
    pub code: u8,
    pub mid: u16,
    pub token: Vec<u8>,
    pub tail: Vec<u8>,
}

impl Datagram {
    pub fn parse(b: &[u8]) -> Res<Self> {
        let tkl = (*b.first().ok_or("empty datagram")? & 15) as usize;
        if b.len() < 4 + tkl || b[0] >> 6 != 1 || tkl > 8 {
            return Err("not CoAP".into());
        }
        Ok(Datagram {
            typ: b[0] >> 4 & 3,
            code: b[1],
            mid: u16::from_be_bytes([b[2], b[3]]),
            token: b[4..4 + tkl].to_vec(),
            tail: b[4 + tkl..].to_vec(),
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let head = [0x40 | self.typ << 4 | self.token.len() as u8, self.code];
        [&head[..], &self.mid.to_be_bytes(), &self.token, &self.tail].concat()
    }

    pub fn acknowledge(&self) -> Self {
        Datagram { typ: ACK, code: 0, mid: self.mid, token: vec![], tail: vec![] }
    }

    pub fn content(&self) -> Content {
        Content::read(&inmemory::Message::new(self.code, &self.tail))
    }

    pub fn oscore(&self) -> Option<Vec<u8>> {
        self.content().option(OSCORE).map(Vec::from)
    }
}
