//! Frames: what travels on a connection after its handshake.
//!
//! Every frame is `length:32`, `kind:8`, body; the length counts the kind and the body. A small
//! message is one frame. A large one is cut: FIRST announces its size, MORE continues it, and
//! frames of other messages may come between. See "Frames" in `docs/internals.md` for the layout.
//!
//! This module knows the fixed parts only. It never sees a payload, so that a reader may put
//! fragments where they belong without copying them twice.

use std::fmt;
use std::sync::Arc;

use crate::limits::{MAX_FRAME_BYTES, MAX_HELLO_BYTES};
use crate::wire::reader;
use crate::wire::term::Pid;

/// Bytes of length and kind.
pub const HEADER: usize = 5;
/// Bytes of a FIRST frame's body before its payload.
pub const FIRST_FIXED: usize = 12;
/// Bytes of a MORE frame's body before its payload.
pub const MORE_FIXED: usize = 4;
/// Bytes of the body of an ASK or a DONE.
pub const QUESTION: usize = 6;
/// Code of a CLOSE frame that ends a session, its sender or both.
pub const CLOSE_ENDED: u8 = 0;

/// Code of a CLOSE frame by which a node that lives says that it needs the session no longer.
pub const CLOSE_RELEASED: u8 = 1;

/// Code of a CLOSE frame by which a node says that it leaves the cluster. As with [`CLOSE_RELEASED`], nothing is lost.
pub const CLOSE_LEFT: u8 = 2;

/// Longest text of a CLOSE frame that we send, in bytes.
pub const MAX_CLOSE_TEXT: usize = 1024;
/// Longest name of a destination, in bytes.
pub const MAX_DEST_NAME: usize = u8::MAX as usize;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A whole message.
    Message = 1,
    /// The beginning of a fragmented message.
    First = 2,
    /// A further piece of a fragmented message.
    More = 3,
    /// Asks for a PONG.
    Ping = 4,
    /// Answers a PING.
    Pong = 5,
    /// The channels of the sender, see [`crate::wire::hello`].
    Hello = 6,
    /// All connections of the session are bound.
    Ready = 7,
    /// The sender ends the session.
    Close = 8,
    /// Asks for a DONE when everything before has been delivered; see [`crate::channel::Branch`].
    Ask = 9,
    /// Answers an ASK.
    Done = 10,
}

impl Kind {
    /// The kind with this number.
    pub const fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Message,
            2 => Kind::First,
            3 => Kind::More,
            4 => Kind::Ping,
            5 => Kind::Pong,
            6 => Kind::Hello,
            7 => Kind::Ready,
            8 => Kind::Close,
            9 => Kind::Ask,
            10 => Kind::Done,
            _ => return None,
        })
    }

    /// Least and greatest size of a body.
    const fn body_bounds(self) -> (usize, usize) {
        match self {
            Kind::Message => (2, MAX_FRAME_BYTES - 1),
            Kind::First => (FIRST_FIXED, MAX_FRAME_BYTES - 1),
            Kind::More => (MORE_FIXED, MAX_FRAME_BYTES - 1),
            Kind::Ping | Kind::Pong => (8, 8),
            Kind::Hello => (3, MAX_HELLO_BYTES),
            Kind::Ready => (0, 0),
            Kind::Close => (1, 1 + MAX_CLOSE_TEXT),
            Kind::Ask | Kind::Done => (QUESTION, QUESTION),
        }
    }
}

/// Why bytes are not a frame, or cannot become one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A length that no frame may have.
    #[error("frame of {0} bytes: frames have 1 to {MAX_FRAME_BYTES}")]
    Length(u64),
    /// A kind that this version does not know.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// A body too short or too long for its kind.
    #[error("{kind:?} frame with a body of {body} bytes: {least} to {most} are allowed")]
    Body {
        /// The frame's kind.
        kind: Kind,
        /// Size of the body.
        body: usize,
        /// Least size.
        least: usize,
        /// Greatest size.
        most: usize,
    },
    /// The frame ends within its fixed part.
    #[error("{0:?} frame ends too early")]
    Short(Kind),
    /// Unknown flags or a reserved kind of destination.
    #[error("message head with flags {0:#04x}: the peer uses a feature that was not agreed on")]
    HeadFlags(u8),
    /// A destination that is not UTF-8.
    #[error("message to a name that is not UTF-8")]
    HeadName,
    /// A destination too long for the head.
    #[error("destination name of {0} bytes: at most {MAX_DEST_NAME} can be sent to")]
    NameTooLong(usize),
    /// Out-of-band binaries in a MESSAGE.
    #[error("MESSAGE frame with the elided bit: such messages travel as FIRST and MORE")]
    ElidedMessage,
}

/// A frame's kind and the size of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Bytes after the kind.
    pub body: usize,
}

/// Reads the header at the front of `bytes`; `None` if more bytes are needed.
///
/// An impossible length is reported as soon as the length is there. The body's size is checked
/// against the kind, so FIRST and MORE always have their fixed part.
pub fn parse_header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let mut input = bytes;
    let Some(length) = reader::u32(&mut input) else {
        return Ok(None);
    };
    let bad_length = FrameError::Length(length.into());
    let Ok(length) = usize::try_from(length) else {
        return Err(bad_length);
    };
    if length == 0 || length > MAX_FRAME_BYTES {
        return Err(bad_length);
    }
    let Some(byte) = reader::u8(&mut input) else {
        return Ok(None);
    };
    let kind = Kind::from_byte(byte).ok_or(FrameError::Kind(byte))?;
    let body = length - 1;
    let (least, most) = kind.body_bounds();
    if body < least || body > most {
        return Err(FrameError::Body {
            kind,
            body,
            least,
            most,
        });
    }
    Ok(Some(Header { kind, body }))
}

/// To whom a message goes, on the node that receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dest<'a> {
    /// A registered name.
    Name(&'a str),
    /// A process.
    Pid {
        /// Number.
        id: u32,
        /// Serial.
        serial: u32,
        /// Incarnation of its node; zero stands for any.
        creation: u32,
    },
}

impl From<&Pid> for Dest<'_> {
    /// That process, on the node that its pid names.
    fn from(pid: &Pid) -> Self {
        Self::Pid {
            id: pid.id,
            serial: pid.serial,
            creation: pid.creation,
        }
    }
}

/// [`Dest`] that owns its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DestBuf {
    /// A registered name.
    Name(Arc<str>),
    /// A process.
    Pid {
        /// Number.
        id: u32,
        /// Serial.
        serial: u32,
        /// Incarnation of its node; zero stands for any.
        creation: u32,
    },
}

impl DestBuf {
    /// A borrowed view.
    pub fn as_dest(&self) -> Dest<'_> {
        match self {
            DestBuf::Name(name) => Dest::Name(name),
            DestBuf::Pid {
                id,
                serial,
                creation,
            } => Dest::Pid {
                id: *id,
                serial: *serial,
                creation: *creation,
            },
        }
    }
}

impl From<Dest<'_>> for DestBuf {
    fn from(dest: Dest<'_>) -> Self {
        match dest {
            Dest::Name(name) => DestBuf::Name(name.into()),
            Dest::Pid {
                id,
                serial,
                creation,
            } => DestBuf::Pid {
                id,
                serial,
                creation,
            },
        }
    }
}

impl<'a> From<&'a DestBuf> for Dest<'a> {
    fn from(dest: &'a DestBuf) -> Self {
        dest.as_dest()
    }
}

impl fmt::Display for Dest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dest::Name(name) => write!(f, "{}", name.escape_debug()),
            Dest::Pid {
                id,
                serial,
                creation,
            } => write!(f, "<{id}.{serial}>#{creation}"),
        }
    }
}

const DEST_BITS: u8 = 0b11;
const DEST_NAME: u8 = 0;
const DEST_PID: u8 = 1;
const ELIDED: u8 = 0b100;

/// The head of a message: where it goes and how its term is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Receiver.
    pub dest: Dest<'a>,
    /// Whether large binaries follow the term instead of standing in it.
    pub elided: bool,
}

impl<'a> Head<'a> {
    /// Size of the encoded head.
    pub const fn encoded_len(&self) -> usize {
        match self.dest {
            Dest::Name(name) => 2 + name.len(),
            Dest::Pid { .. } => 13,
        }
    }

    /// Appends the head; refuses a name longer than [`MAX_DEST_NAME`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let elided = if self.elided { ELIDED } else { 0 };
        match self.dest {
            Dest::Name(name) => {
                let len =
                    u8::try_from(name.len()).map_err(|_| FrameError::NameTooLong(name.len()))?;
                out.extend_from_slice(&[DEST_NAME | elided, len]);
                out.extend_from_slice(name.as_bytes());
            }
            Dest::Pid {
                id,
                serial,
                creation,
            } => {
                out.push(DEST_PID | elided);
                for word in [id, serial, creation] {
                    out.extend_from_slice(&word.to_be_bytes());
                }
            }
        }
        Ok(())
    }

    /// Reads the head at the front of `bytes` and tells its size; `None` if more are needed.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Head<'a>, usize)>, FrameError> {
        let mut input = bytes;
        let Some(flags) = reader::u8(&mut input) else {
            return Ok(None);
        };
        if flags & !(DEST_BITS | ELIDED) != 0 {
            return Err(FrameError::HeadFlags(flags));
        }
        let dest = match flags & DEST_BITS {
            DEST_NAME => parse_name(&mut input)?,
            DEST_PID => parse_pid(&mut input),
            _ => return Err(FrameError::HeadFlags(flags)),
        };
        let elided = flags & ELIDED != 0;
        Ok(dest.map(|dest| (Head { dest, elided }, bytes.len() - input.len())))
    }
}

fn parse_name<'a>(input: &mut &'a [u8]) -> Result<Option<Dest<'a>>, FrameError> {
    let Some(len) = reader::u8(input) else {
        return Ok(None);
    };
    let Some(name) = reader::bytes(input, len.into()) else {
        return Ok(None);
    };
    let name = std::str::from_utf8(name).map_err(|_| FrameError::HeadName)?;
    Ok(Some(Dest::Name(name)))
}

fn parse_pid<'a>(input: &mut &[u8]) -> Option<Dest<'a>> {
    let id = reader::u32(input)?;
    let serial = reader::u32(input)?;
    let creation = reader::u32(input)?;
    Some(Dest::Pid {
        id,
        serial,
        creation,
    })
}

/// Appends a whole MESSAGE frame; nothing is appended on error.
pub fn put_message(out: &mut Vec<u8>, dest: Dest<'_>, term: &[u8]) -> Result<(), FrameError> {
    let head = Head {
        dest,
        elided: false,
    };
    let start = out.len();
    let length = 1 + head.encoded_len() + term.len();
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::Length(length as u64));
    }
    out.reserve(4 + length);
    out.extend_from_slice(&header(Kind::Message, length - 1));
    if let Err(error) = head.encode(out) {
        out.truncate(start);
        return Err(error);
    }
    out.extend_from_slice(term);
    Ok(())
}

/// Splits the body of a MESSAGE into head and term.
pub fn parse_message(body: &[u8]) -> Result<(Head<'_>, &[u8]), FrameError> {
    let (head, used) = Head::parse(body)?.ok_or(FrameError::Short(Kind::Message))?;
    if head.elided {
        return Err(FrameError::ElidedMessage);
    }
    Ok((head, body.get(used..).unwrap_or_default()))
}

/// Appends a frame of any kind; refuses a body that the receiver would refuse.
pub fn put_frame(out: &mut Vec<u8>, kind: Kind, body: &[u8]) -> Result<(), FrameError> {
    let (least, most) = kind.body_bounds();
    if body.len() < least || body.len() > most {
        return Err(FrameError::Body {
            kind,
            body: body.len(),
            least,
            most,
        });
    }
    out.extend_from_slice(&header(kind, body.len()));
    out.extend_from_slice(body);
    Ok(())
}

/// A frame's header. The caller keeps the body within [`MAX_FRAME_BYTES`].
fn header(kind: Kind, body: usize) -> [u8; HEADER] {
    debug_assert!(body < MAX_FRAME_BYTES, "frame body of {body} bytes");
    let [a, b, c, d] = (body as u32 + 1).to_be_bytes();
    [a, b, c, d, kind as u8]
}

/// Everything of a FIRST frame but its payload of `payload` bytes.
pub fn first_header(stream: u32, total: u64, payload: usize) -> [u8; HEADER + FIRST_FIXED] {
    let mut out = [0; HEADER + FIRST_FIXED];
    out[..5].copy_from_slice(&header(Kind::First, FIRST_FIXED + payload));
    out[5..9].copy_from_slice(&stream.to_be_bytes());
    out[9..].copy_from_slice(&total.to_be_bytes());
    out
}

/// Everything of a MORE frame but its payload of `payload` bytes.
pub fn more_header(stream: u32, payload: usize) -> [u8; HEADER + MORE_FIXED] {
    let mut out = [0; HEADER + MORE_FIXED];
    out[..5].copy_from_slice(&header(Kind::More, MORE_FIXED + payload));
    out[5..].copy_from_slice(&stream.to_be_bytes());
    out
}

/// A PING frame.
pub fn ping(id: u64) -> [u8; HEADER + 8] {
    with_id(Kind::Ping, id)
}

/// A PONG frame.
pub fn pong(id: u64) -> [u8; HEADER + 8] {
    with_id(Kind::Pong, id)
}

fn with_id(kind: Kind, id: u64) -> [u8; HEADER + 8] {
    let mut out = [0; HEADER + 8];
    out[..5].copy_from_slice(&header(kind, 8));
    out[5..].copy_from_slice(&id.to_be_bytes());
    out
}

/// A READY frame.
pub fn ready() -> [u8; HEADER] {
    header(Kind::Ready, 0)
}

/// A CLOSE frame; the text is cut at [`MAX_CLOSE_TEXT`] bytes.
pub fn close(code: u8, text: &str) -> Vec<u8> {
    let mut end = text.len().min(MAX_CLOSE_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = Vec::with_capacity(HEADER + 1 + end);
    out.extend_from_slice(&header(Kind::Close, 1 + end));
    out.push(code);
    out.extend_from_slice(&text.as_bytes()[..end]);
    out
}

/// A question, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Number of the connection in its session that asks.
    pub index: u16,
    /// Number of the question.
    pub number: u32,
}

/// An ASK frame.
pub fn ask(question: Question) -> [u8; HEADER + QUESTION] {
    with_question(Kind::Ask, question)
}

/// A DONE frame.
pub fn done(question: Question) -> [u8; HEADER + QUESTION] {
    with_question(Kind::Done, question)
}

fn with_question(kind: Kind, question: Question) -> [u8; HEADER + QUESTION] {
    let mut out = [0; HEADER + QUESTION];
    out[..5].copy_from_slice(&header(kind, QUESTION));
    out[5..7].copy_from_slice(&question.index.to_be_bytes());
    out[7..].copy_from_slice(&question.number.to_be_bytes());
    out
}

/// Stream and total size from the front of a FIRST's body.
pub fn parse_first(body: &[u8]) -> Result<(u32, u64), FrameError> {
    let mut input = body;
    let stream = reader::u32(&mut input).ok_or(FrameError::Short(Kind::First))?;
    let total = reader::u64(&mut input).ok_or(FrameError::Short(Kind::First))?;
    Ok((stream, total))
}

/// Stream from the front of a MORE's body.
pub fn parse_more(mut body: &[u8]) -> Result<u32, FrameError> {
    reader::u32(&mut body).ok_or(FrameError::Short(Kind::More))
}

/// The id in the body of a PING or PONG.
pub fn parse_ping(mut body: &[u8]) -> Result<u64, FrameError> {
    reader::u64(&mut body).ok_or(FrameError::Short(Kind::Ping))
}

/// The body of an ASK or a DONE, which is `kind`.
pub fn parse_question(kind: Kind, mut body: &[u8]) -> Result<Question, FrameError> {
    let index = reader::u16(&mut body).ok_or(FrameError::Short(kind))?;
    let number = reader::u32(&mut body).ok_or(FrameError::Short(kind))?;
    Ok(Question { index, number })
}

/// Code and text of a CLOSE. What is not UTF-8 in the text is replaced: it is only for a log.
pub fn parse_close(mut body: &[u8]) -> Result<(u8, String), FrameError> {
    let code = reader::u8(&mut body).ok_or(FrameError::Short(Kind::Close))?;
    Ok((code, String::from_utf8_lossy(body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dest() -> impl Strategy<Value = DestBuf> {
        prop_oneof![
            "\\PC{0,60}".prop_map(|name| DestBuf::Name(name.into())),
            any::<(u32, u32, u32)>().prop_map(|(id, serial, creation)| DestBuf::Pid {
                id,
                serial,
                creation
            }),
        ]
    }

    #[test]
    fn header_is_refused_by_length_kind_and_body() {
        assert_eq!(parse_header(&[0, 0, 0]), Ok(None));
        assert_eq!(parse_header(&[0, 0, 0, 1]), Ok(None));
        assert_eq!(parse_header(&[0, 0, 0, 0]), Err(FrameError::Length(0)));
        assert_eq!(
            parse_header(&[0, 0x10, 0, 1]),
            Err(FrameError::Length(0x10_0001))
        );
        assert_eq!(
            parse_header(&[0xff; 4]),
            Err(FrameError::Length(0xffff_ffff))
        );
        assert_eq!(parse_header(&[0, 0, 0, 1, 11]), Err(FrameError::Kind(11)));
        assert_eq!(parse_header(&[0, 0, 0, 1, 0]), Err(FrameError::Kind(0)));
        for kind in 1..=10 {
            let kind = Kind::from_byte(kind).expect("a kind");
            let (least, most) = kind.body_bounds();
            for body in [least, most] {
                let header = header(kind, body);
                assert_eq!(parse_header(&header), Ok(Some(Header { kind, body })));
            }
            if least > 0 {
                let header = header(kind, least - 1);
                assert!(matches!(
                    parse_header(&header),
                    Err(FrameError::Body { .. })
                ));
            }
            if most + 1 < MAX_FRAME_BYTES {
                let header = header(kind, most + 1);
                assert!(matches!(
                    parse_header(&header),
                    Err(FrameError::Body { .. })
                ));
            }
        }
    }

    #[test]
    fn message_within_bounds_only() {
        let mut out = vec![7];
        let long = "x".repeat(256);
        assert_eq!(
            put_message(&mut out, Dest::Name(&long), b""),
            Err(FrameError::NameTooLong(256))
        );
        let term = vec![0; MAX_FRAME_BYTES - 4];
        assert!(put_message(&mut out, Dest::Name("ab"), &term).is_err());
        assert_eq!(out, [7]);
        assert_eq!(put_message(&mut out, Dest::Name("a"), &term), Ok(()));
        let header = parse_header(&out[1..]).expect("valid").expect("whole");
        assert_eq!(header.body, MAX_FRAME_BYTES - 1);
    }

    #[test]
    fn head_refuses_reserved_bits_and_elided_messages() {
        for flags in [2, 3, 8, 0x80] {
            assert_eq!(Head::parse(&[flags, 0]), Err(FrameError::HeadFlags(flags)));
        }
        assert_eq!(Head::parse(&[0, 1, 0xff]), Err(FrameError::HeadName));
        assert_eq!(parse_message(&[ELIDED, 0]), Err(FrameError::ElidedMessage));
        assert_eq!(
            parse_message(&[0, 5, b'a']),
            Err(FrameError::Short(Kind::Message))
        );
    }

    #[test]
    fn close_cuts_between_characters() {
        let frame = close(3, &"é".repeat(MAX_CLOSE_TEXT));
        parse_header(&frame).expect("within bounds");
        let (code, text) = parse_close(&frame[HEADER..]).expect("valid");
        assert_eq!((code, text.len()), (3, MAX_CLOSE_TEXT));
        let frame = close(3, &format!("a{}", "é".repeat(MAX_CLOSE_TEXT)));
        assert_eq!(
            parse_close(&frame[HEADER..]).expect("valid").1.len(),
            MAX_CLOSE_TEXT - 1
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_header(&bytes);
            if let Ok(Some((head, used))) = Head::parse(&bytes) {
                prop_assert_eq!(used, head.encoded_len());
                let mut again = Vec::new();
                head.encode(&mut again).expect("short");
                prop_assert_eq!(&again[..], &bytes[..used]);
            }
            let _ = parse_message(&bytes);
            let _ = parse_first(&bytes);
            let _ = parse_more(&bytes);
            let _ = parse_ping(&bytes);
            let _ = parse_close(&bytes);
            let _ = parse_question(Kind::Ask, &bytes);
        }

        #[test]
        fn head_round_trips_and_waits_for_its_end(dest in dest(), elided: bool) {
            let head = Head { dest: dest.as_dest(), elided };
            let mut out = Vec::new();
            head.encode(&mut out).expect("short");
            prop_assert_eq!(out.len(), head.encoded_len());
            for end in 0..out.len() {
                prop_assert_eq!(Head::parse(&out[..end]), Ok(None));
            }
            prop_assert_eq!(Head::parse(&out), Ok(Some((head, out.len()))));
            prop_assert_eq!(DestBuf::from(head.dest), dest);
        }

        #[test]
        fn message_round_trips(dest in dest(), term in prop::collection::vec(any::<u8>(), 0..99)) {
            let mut out = Vec::new();
            put_message(&mut out, dest.as_dest(), &term).expect("small");
            let header = parse_header(&out).expect("valid").expect("whole");
            prop_assert_eq!(header, Header { kind: Kind::Message, body: out.len() - HEADER });
            let (head, rest) = parse_message(&out[HEADER..]).expect("valid");
            prop_assert_eq!(head, Head { dest: dest.as_dest(), elided: false });
            prop_assert_eq!(rest, &term[..]);
        }

        #[test]
        fn fixed_parts_round_trip(stream: u32, total: u64, payload in 0usize..1 << 19) {
            let first = first_header(stream, total, payload);
            let body = FIRST_FIXED + payload;
            prop_assert_eq!(parse_header(&first), Ok(Some(Header { kind: Kind::First, body })));
            prop_assert_eq!(parse_first(&first[HEADER..]), Ok((stream, total)));
            let more = more_header(stream, payload);
            let body = MORE_FIXED + payload;
            prop_assert_eq!(parse_header(&more), Ok(Some(Header { kind: Kind::More, body })));
            prop_assert_eq!(parse_more(&more[HEADER..]), Ok(stream));
            for (kind, frame) in [(Kind::Ping, ping(total)), (Kind::Pong, pong(total))] {
                prop_assert_eq!(parse_header(&frame), Ok(Some(Header { kind, body: 8 })));
                prop_assert_eq!(parse_ping(&frame[HEADER..]), Ok(total));
            }
            let question = Question { index: payload as u16, number: stream };
            for (kind, frame) in [(Kind::Ask, ask(question)), (Kind::Done, done(question))] {
                prop_assert_eq!(parse_header(&frame), Ok(Some(Header { kind, body: QUESTION })));
                prop_assert_eq!(parse_question(kind, &frame[HEADER..]), Ok(question));
            }
            let header = Header { kind: Kind::Ready, body: 0 };
            prop_assert_eq!(parse_header(&ready()), Ok(Some(header)));
        }
    }
}
