//! The packets of the handshake, without any idea of their order.

use crate::wire::flags::Flags;
use crate::wire::handshake::trailer::Binding;
use crate::wire::handshake::{HandshakeError, Refusal};
use crate::wire::identity::Identity;
use crate::wire::reader;

/// Longest node name, in bytes.
const MAX_NAME: usize = 255;

/// Longest name that we give to a node that has none, with its `@`.
pub(super) const GIVEN_NAME: usize = 17;

/// Name or challenge packet; what follows the name is left to the caller.
pub(super) struct Hello<'a> {
    pub(super) flags: Flags,
    pub(super) challenge: u32,
    pub(super) creation: u32,
    pub(super) name: &'a str,
    pub(super) residue: &'a [u8],
}

pub(super) enum Status<'a> {
    Ok,
    /// The listener has a connection of our name: is it dead?
    Alive,
    /// The listener gives us this name and creation.
    Named(&'a [u8], u32),
    Refused(Refusal),
}

/// What a dialler may begin with.
pub(super) enum Name<'a> {
    /// The name packet of today.
    New(Hello<'a>),
    /// The one from before OTP 23, to be completed later.
    Old(Hello<'a>),
}

pub(super) struct Reply<'a> {
    pub(super) challenge: u32,
    pub(super) digest: [u8; 16],
    pub(super) binding: &'a [u8],
}

/// Puts the 16-bit length before a packet.
fn framed(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(2 + len);
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.push(tag);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

pub(super) fn name(flags: Flags, local: &Identity, trailer: &[u8]) -> Vec<u8> {
    hello(flags, None, local, trailer)
}

pub(super) fn challenge(flags: Flags, challenge: u32, local: &Identity, trailer: &[u8]) -> Vec<u8> {
    hello(flags, Some(challenge), local, trailer)
}

fn hello(flags: Flags, challenge: Option<u32>, local: &Identity, trailer: &[u8]) -> Vec<u8> {
    let challenge = challenge.map(u32::to_be_bytes);
    framed(
        b'N',
        &[
            &flags.0.to_be_bytes(),
            challenge.as_ref().map_or(&[], |bytes| &bytes[..]),
            &local.creation.to_be_bytes(),
            &(local.node.len() as u16).to_be_bytes(),
            local.node.as_bytes(),
            trailer,
        ],
    )
}

pub(super) fn status(text: &str) -> Vec<u8> {
    framed(b's', &[text.as_bytes()])
}

pub(super) fn named(local: &Identity) -> Vec<u8> {
    framed(
        b's',
        &[
            b"named:",
            &(local.node.len() as u16).to_be_bytes(),
            local.node.as_bytes(),
            &local.creation.to_be_bytes(),
        ],
    )
}

pub(super) fn reply(challenge: u32, digest: [u8; 16], binding: Option<&Binding>) -> Vec<u8> {
    let binding = binding.map(Binding::encode).unwrap_or_default();
    framed(b'r', &[&challenge.to_be_bytes(), &digest, &binding])
}

pub(super) fn ack(digest: [u8; 16]) -> Vec<u8> {
    framed(b'a', &[&digest])
}

fn tagged<'a>(packet: &'a [u8], tag: u8, name: &'static str) -> Result<&'a [u8], HandshakeError> {
    match packet.split_first() {
        Some((found, rest)) if *found == tag => Ok(rest),
        Some((b'n', _)) if tag == b'N' => Err(HandshakeError::TooOld),
        _ => Err(HandshakeError::Malformed {
            packet: name,
            what: "it has another tag",
        }),
    }
}

fn short(packet: &'static str) -> HandshakeError {
    HandshakeError::Malformed {
        packet,
        what: "it ends too early",
    }
}

pub(super) fn parse_name(packet: &[u8]) -> Result<Name<'_>, HandshakeError> {
    match packet.split_first() {
        Some((b'n', rest)) => parse_old_name(rest).map(Name::Old),
        _ => parse_hello(packet, false, "name").map(Name::New),
    }
}

pub(super) fn parse_challenge(packet: &[u8]) -> Result<Hello<'_>, HandshakeError> {
    parse_hello(packet, true, "challenge")
}

fn parse_hello<'a>(
    packet: &'a [u8],
    with_challenge: bool,
    kind: &'static str,
) -> Result<Hello<'a>, HandshakeError> {
    let mut input = tagged(packet, b'N', kind)?;
    let flags = Flags(reader::u64(&mut input).ok_or(short(kind))?).expanded();
    let challenge = match with_challenge {
        true => reader::u32(&mut input).ok_or(short(kind))?,
        false => 0,
    };
    let creation = reader::u32(&mut input).ok_or(short(kind))?;
    let len = reader::u16(&mut input).ok_or(short(kind))?;
    let name = reader::bytes(&mut input, len.into()).ok_or(short(kind))?;
    let nameless = !with_challenge && flags.contains(Flags::NAME_ME);
    let parsed = match nameless {
        true => host_name(name),
        false => node_name(name),
    };
    let name = parsed.ok_or_else(|| HandshakeError::BadName(printable(name)))?;
    Ok(Hello {
        flags,
        challenge,
        creation,
        name,
        residue: input,
    })
}

/// Version, the lower half of the flags, and the name up to the packet's end.
fn parse_old_name(mut input: &[u8]) -> Result<Hello<'_>, HandshakeError> {
    let version = reader::u16(&mut input).ok_or(short("name"))?;
    let flags = reader::u32(&mut input).ok_or(short("name"))?;
    let flags = Flags(flags.into()).expanded();
    if version < 5 || !flags.contains(Flags::HANDSHAKE_23) {
        return Err(HandshakeError::TooOld);
    }
    let name = node_name(input).ok_or_else(|| HandshakeError::BadName(printable(input)))?;
    Ok(Hello {
        flags,
        challenge: 0,
        creation: 0,
        name,
        residue: &[],
    })
}

/// The upper half of the flags, as flags, and the creation.
pub(super) fn parse_complement(packet: &[u8]) -> Result<(Flags, u32), HandshakeError> {
    let mut input = tagged(packet, b'c', "complement")?;
    let flags = reader::u32(&mut input).ok_or(short("complement"))?;
    let creation = reader::u32(&mut input).ok_or(short("complement"))?;
    Ok((Flags(u64::from(flags) << 32), creation))
}

/// A host as it follows the `@` in a name. It must leave room for the name before it.
fn host_name(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '@';
    let fits = !text.is_empty() && text.len() <= MAX_NAME - GIVEN_NAME;
    (fits && text.chars().all(plain)).then_some(text)
}

/// `name@host` without spaces and control characters.
pub(super) fn node_name(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (name, host) = text.split_once('@')?;
    let fits = text.len() <= MAX_NAME && !name.is_empty() && !host.is_empty();
    let plain = |c: char| !c.is_control() && !c.is_whitespace();
    (fits && !host.contains('@') && text.chars().all(plain)).then_some(text)
}

/// The beginning of what a peer sent, fit for a log.
fn printable(bytes: &[u8]) -> String {
    let head = bytes.get(..MAX_NAME).unwrap_or(bytes);
    String::from_utf8_lossy(head).into_owned()
}

pub(super) fn parse_status(packet: &[u8]) -> Result<Status<'_>, HandshakeError> {
    let text = tagged(packet, b's', "status")?;
    if let Some(mut input) = text.strip_prefix(b"named:") {
        let len = reader::u16(&mut input).ok_or(short("status"))?;
        let name = reader::bytes(&mut input, len.into()).ok_or(short("status"))?;
        let creation = reader::u32(&mut input).ok_or(short("status"))?;
        return Ok(Status::Named(name, creation));
    }
    Ok(match text {
        b"ok" | b"ok_simultaneous" => Status::Ok,
        b"nok" => Status::Refused(Refusal::Nok),
        b"not_allowed" => Status::Refused(Refusal::NotAllowed),
        b"alive" => Status::Alive,
        other => {
            let head = other.get(..64).unwrap_or(other);
            Status::Refused(Refusal::Other(head.escape_ascii().to_string()))
        }
    })
}

/// The dialler's answer to the status `alive`: whether its older connection is dead.
pub(super) fn parse_alive(packet: &[u8]) -> Result<bool, HandshakeError> {
    match tagged(packet, b's', "answer to alive")? {
        b"true" => Ok(true),
        b"false" => Ok(false),
        _ => Err(HandshakeError::Malformed {
            packet: "answer to alive",
            what: "it is neither true nor false",
        }),
    }
}

pub(super) fn parse_reply(packet: &[u8]) -> Result<Reply<'_>, HandshakeError> {
    let mut input = tagged(packet, b'r', "challenge reply")?;
    let challenge = reader::u32(&mut input).ok_or(short("challenge reply"))?;
    let digest = reader::array(&mut input).ok_or(short("challenge reply"))?;
    Ok(Reply {
        challenge,
        digest,
        binding: input,
    })
}

pub(super) fn parse_ack(packet: &[u8]) -> Result<[u8; 16], HandshakeError> {
    let mut input = tagged(packet, b'a', "challenge ack")?;
    reader::array(&mut input).ok_or(short("challenge ack"))
}
