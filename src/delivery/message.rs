//! Bytes of acknowledged delivery.
//!
//! ```text
//! message:  version:8 = 1  kind:8  lane  epoch:64 ...
//! lane:     kind:8 (0 channel, 1 label)  name: text
//! data, 1:  start:64  number:64  body        a label's body begins with length:32 stamp (causal)
//! ack, 2:   done:64  received:64  again:8
//! parcel:   kind:8 (0 name, 1 pid)  name: text | id:32 serial:32 creation:32   then the term
//! ```

use std::sync::Arc;

use bytes::Bytes;

use crate::limits::MAX_DELIVERY_MESSAGE_BYTES;
use crate::overlay::codec::{DecodeError, Reader, put_text};
use crate::wire::frame::Dest;

use super::Lane;

const VERSION: u8 = 1;

/// What two nodes send each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A user's message.
    Data {
        /// Its stream.
        lane: Lane,
        /// Which life of the stream; a later one has a greater number.
        epoch: u64,
        /// Number of the first message of this life.
        start: u64,
        /// Number of this one.
        number: u64,
        /// What is delivered, see [`Parcel`], behind a stamp if the stream is a label's.
        body: Bytes,
    },
    /// What has come of a stream.
    Ack {
        /// The stream.
        lane: Lane,
        /// Its life.
        epoch: u64,
        /// All before this number are delivered.
        done: u64,
        /// All before this number have come.
        received: u64,
        /// Those from `received` on have to be sent once more.
        again: bool,
    },
}

impl Message {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match self {
            Self::Data {
                lane,
                epoch,
                start,
                number,
                body,
            } => {
                out.push(1);
                put_lane(out, lane);
                for n in [epoch, start, number] {
                    out.extend_from_slice(&n.to_be_bytes());
                }
                out.extend_from_slice(body);
            }
            Self::Ack {
                lane,
                epoch,
                done,
                received,
                again,
            } => {
                out.push(2);
                put_lane(out, lane);
                for n in [epoch, done, received] {
                    out.extend_from_slice(&n.to_be_bytes());
                }
                out.push((*again).into());
            }
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// They are no such bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_DELIVERY_MESSAGE_BYTES {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        reader.version(VERSION)?;
        let kind = reader.u8()?;
        let lane = lane(&mut reader)?;
        let epoch = reader.u64()?;
        match kind {
            1 => {
                let (start, number) = (reader.u64()?, reader.u64()?);
                if number < start || number == u64::MAX {
                    return Err(DecodeError::Bad("number of a message"));
                }
                Ok(Self::Data {
                    lane,
                    epoch,
                    start,
                    number,
                    body: Bytes::copy_from_slice(reader.rest()),
                })
            }
            2 => {
                let (done, received) = (reader.u64()?, reader.u64()?);
                let again = reader.bool("acknowledgement")?;
                reader.end()?;
                if done > received {
                    return Err(DecodeError::Bad("acknowledgement"));
                }
                Ok(Self::Ack {
                    lane,
                    epoch,
                    done,
                    received,
                    again,
                })
            }
            _ => Err(DecodeError::Bad("kind of message")),
        }
    }
}

fn put_lane(out: &mut Vec<u8>, lane: &Lane) {
    let (kind, name) = match lane {
        Lane::Channel(name) => (0, name),
        Lane::Label(name) => (1, name),
    };
    out.push(kind);
    put_text(out, name);
}

fn lane(reader: &mut Reader<'_>) -> Result<Lane, DecodeError> {
    let kind = reader.u8()?;
    let name = reader.text()?;
    if name.len() > 255 {
        return Err(DecodeError::Bad("name of a stream"));
    }
    match kind {
        0 => Ok(Lane::Channel(Arc::from(name))),
        1 => Ok(Lane::Label(Arc::from(name))),
        _ => Err(DecodeError::Bad("kind of stream")),
    }
}

/// A term and whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parcel<'a> {
    /// At the receiving node.
    pub dest: Dest<'a>,
    /// In the external term format.
    pub term: &'a [u8],
}

impl<'a> Parcel<'a> {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self.dest {
            Dest::Name(name) => {
                out.push(0);
                put_text(out, name);
            }
            Dest::Pid {
                id,
                serial,
                creation,
            } => {
                out.push(1);
                for n in [id, serial, creation] {
                    out.extend_from_slice(&n.to_be_bytes());
                }
            }
        }
        out.extend_from_slice(self.term);
    }

    /// Reads it.
    ///
    /// # Errors
    /// They are no such bytes. The term is not looked at.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let dest = match reader.u8()? {
            0 => Dest::Name(reader.text()?),
            1 => Dest::Pid {
                id: reader.u32()?,
                serial: reader.u32()?,
                creation: reader.u32()?,
            },
            _ => return Err(DecodeError::Bad("destination")),
        };
        Ok(Self {
            dest,
            term: reader.rest(),
        })
    }
}
