//! The security context, and the four steps of RFC 8613 section 8 in libOSCORE's hands.
use crate::datagram::{build, Content, Datagram, OBSERVE, OSCORE};
use crate::{Res, Words};
use coap_message_implementations::{inmemory, inmemory_write::Message};
use liboscore::{raw, AeadAlg, HkdfAlg, OscoreOption, PrimitiveContext, PrimitiveImmutables};

/// What binds a response to its request.
pub type RequestId = raw::oscore_requestid_t;

const FETCH: u8 = 0x05;

pub fn context(w: &Words, sid: &str, rid: &str) -> Res<PrimitiveContext> {
    let id_context = w.get("idctx").map(|_| w.bytes("idctx", ""));
    let hmac = match w.number("hkdf", -10) {
        -10 => 5, // libOSCORE names an HKDF by its HMAC (RFC 9053 section 3.1)
        -11 => 7,
        n => n,
    };
    let immutables = PrimitiveImmutables::derive(
        HkdfAlg::from_number(hmac as i32).map_err(|_| "HKDF unsupported")?,
        &w.bytes("secret", "0102030405060708090a0b0c0d0e0f10"),
        &w.bytes("salt", "9e7ca92223786340"),
        id_context.as_deref(),
        AeadAlg::from_number(w.number("alg", 10) as i32).map_err(|_| "AEAD unsupported")?,
        &w.bytes("sid", sid),
        &w.bytes("rid", rid),
    )
    .map_err(|e| format!("derive: {e:?}"))?;
    let mut ctx = PrimitiveContext::new_from_fresh_material(immutables);
    // The wrapper has no setter for the sender sequence number; reach the C struct through raw.
    // SAFETY: as_mut() points `data` at the primitive context that `ctx` owns.
    let primitive = unsafe { &mut *(ctx.as_mut().data as *mut raw::oscore_context_primitive) };
    primitive.sender_sequence_number = w.number("seq", 0) as u64;
    Ok(ctx)
}

pub fn protect_request(ctx: &mut PrimitiveContext, inner: &Content) -> Res<(u8, Vec<u8>, RequestId)> {
    let (mut outer, tail, id) = build(|m| {
        let (id, r) = liboscore::protect_request(m, ctx, |p| inner.write(p)).map_err(|e| format!("{e:?}"))?;
        r.map(|_| id)
    })?;
    if inner.option(OBSERVE).is_some() {
        outer = FETCH; // section 4.1.3.5 wants FETCH with Observe; libOSCORE always writes POST
    }
    Ok((outer, tail, id))
}

pub fn protect_response(ctx: &mut PrimitiveContext, id: &mut RequestId, inner: &Content) -> Res<Vec<u8>> {
    Ok(build(|m| liboscore::protect_response(m, ctx, id, |p| inner.write(p)).map_err(|e| format!("{e:?}"))?)?.1)
}

/// The error is the plain answer of section 8.2: code and text.
pub fn unprotect_request(ctx: &mut PrimitiveContext, d: &Datagram) -> Result<(RequestId, Content), (u8, String)> {
    let value = d.oscore().ok_or((0x81, "use OSCORE".to_string()))?;
    let option = OscoreOption::parse(&value).map_err(|_| (0x82, "Failed to decode COSE".to_string()))?;
    if option.kid() != Some(ctx.recipient_id()) {
        return Err((0x81, "Security context not found".into())); // libOSCORE itself leaves the kid unchecked
    }
    let (mut code, mut tail) = (d.code, d.tail.clone());
    let mut m = Message::new_from_existing(&mut code, &mut tail);
    liboscore::unprotect_request(&mut m, option, ctx, |p| Content::read(p)).map_err(|e| match e {
        liboscore::UnprotectRequestError::Duplicate => (0x81, "Replay detected".into()),
        _ => (0x80, "Decryption failed".into()),
    })
}

pub fn unprotect_response(ctx: &mut PrimitiveContext, id: &mut RequestId, d: &Datagram) -> Res<Content> {
    let value = d.oscore().ok_or("no OSCORE option")?;
    let option = OscoreOption::parse(&value).map_err(|_| "bad OSCORE option")?;
    let (mut code, mut tail) = (d.code, d.tail.clone());
    let mut m = Message::new_from_existing(&mut code, &mut tail);
    liboscore::unprotect_response(&mut m, ctx, option, id, |p| Content::read(p)).map_err(|e| format!("{e:?}"))
}

/// Puts a kid context into the outer OSCORE option (libOSCORE cannot send one).
pub fn add_kid_context(tail: &[u8], kid_context: &[u8]) -> Res<Vec<u8>> {
    let mut outer = Content::read(&inmemory::Message::new(0x02, tail));
    for (_, v) in outer.options.iter_mut().filter(|o| o.0 == OSCORE) {
        let kid = 1 + (v[0] & 7) as usize;
        *v = [&[v[0] | 0x10], &v[1..kid], &[kid_context.len() as u8], kid_context, &v[kid..]].concat();
    }
    outer.tail()
}
