//! From a validated term to its value, without recursion.

use super::value::{Atom, Opaque, Pid, Port, Reference, Value};
use super::walk::{AtomText, Identifier, Kind, Token, Walker};
use super::{Form, TermError};
use bytes::Bytes;
use num_bigint::{BigInt, Sign};
use std::sync::Arc;

#[derive(Clone, Copy)]
enum Shape {
    Tuple,
    List,
    Map,
}

/// A container that waits for its elements.
struct Open {
    shape: Shape,
    wanted: usize,
    values: Vec<Value>,
}

impl Open {
    fn close(self) -> Value {
        let mut values = self.values;
        match self.shape {
            Shape::Tuple => Value::Tuple(values),
            Shape::Map => {
                let mut pairs = Vec::with_capacity(values.len() / 2);
                let mut values = values.into_iter();
                while let (Some(key), Some(value)) = (values.next(), values.next()) {
                    pairs.push((key, value));
                }
                Value::Map(pairs)
            }
            Shape::List => match values.pop() {
                // A list of no elements is its tail.
                Some(tail) if values.is_empty() => tail,
                Some(Value::List(tail)) if tail.is_empty() => Value::List(values),
                Some(tail) => Value::ImproperList(values, Box::new(tail)),
                None => Value::List(values),
            },
        }
    }
}

/// The value of a term that has passed `scan`.
///
/// What hasn't passed gives some value, too, and costs no more than its length.
pub(super) fn decode(skeleton: &Bytes, form: Form, blobs: &[Bytes]) -> Value {
    let decoded = try_decode(skeleton, form, blobs);
    debug_assert!(decoded.is_ok(), "{decoded:?}");
    decoded.unwrap_or(Value::List(Vec::new()))
}

fn try_decode(skeleton: &Bytes, form: Form, blobs: &[Bytes]) -> Result<Value, TermError> {
    let mut walker = Walker::new(skeleton, form, u32::MAX)?;
    let mut blobs = blobs.iter();
    let mut open: Vec<Open> = Vec::new();
    let mut last = Value::List(Vec::new());
    while let Some(token) = walker.next()? {
        let (shape, wanted) = match token {
            Token::Tuple(arity) => (Shape::Tuple, arity as usize),
            Token::List(length) => (Shape::List, length as usize + 1),
            Token::Map(pairs) => (Shape::Map, 2 * pairs as usize),
            Token::Blob(_) => {
                last = Value::Binary(blobs.next().ok_or(TermError::BlobMismatch)?.clone());
                settle(&mut last, &mut open);
                continue;
            }
            token => {
                if let Token::Fun(fun) = &token {
                    walker.skip_fun(fun);
                }
                last = leaf(token, skeleton, walker.start()..walker.at());
                settle(&mut last, &mut open);
                continue;
            }
        };
        if wanted == 0 {
            last = Open {
                shape,
                wanted,
                values: Vec::new(),
            }
            .close();
            settle(&mut last, &mut open);
        } else {
            // The walker has compared the count with the bytes left. Capacity beyond that of
            // many small containers is earned by elements, lest nested claims add up.
            let values = Vec::with_capacity(wanted.min(1024));
            open.push(Open {
                shape,
                wanted,
                values,
            });
        }
    }
    Ok(last)
}

/// Gives a finished value to the innermost container, and each one that is thereby complete to
/// the next. What is left in `value` is the outermost.
fn settle(value: &mut Value, open: &mut Vec<Open>) {
    while let Some(container) = open.last_mut() {
        container
            .values
            .push(std::mem::replace(value, Value::Integer(0)));
        if container.values.len() < container.wanted {
            return;
        }
        if let Some(container) = open.pop() {
            *value = container.close();
        }
    }
}

fn leaf(token: Token<'_>, skeleton: &Bytes, place: std::ops::Range<usize>) -> Value {
    match token {
        Token::Integer(number) => Value::Integer(number),
        Token::Big {
            negative,
            magnitude,
        } => big(negative, magnitude),
        Token::Float(number) => Value::Float(number),
        Token::Atom(text) => Value::Atom(Atom::new(shared(text))),
        Token::Nil => Value::List(Vec::new()),
        Token::String(bytes) => Value::List(
            bytes
                .iter()
                .map(|&byte| Value::Integer(byte.into()))
                .collect(),
        ),
        Token::Binary(bytes)
        | Token::Bits {
            bytes,
            last_bits: 8,
        } => Value::Binary(skeleton.slice_ref(bytes)),
        Token::Bits { bytes, last_bits } => Value::Bits {
            bytes: skeleton.slice_ref(bytes),
            last_bits,
        },
        Token::Identifier(identifier) => identified(&identifier),
        Token::Fun(_) | Token::Export { .. } => Value::Fun(Opaque::trusted(skeleton.slice(place))),
        Token::Blob(_) | Token::Tuple(_) | Token::List(_) | Token::Map(_) => {
            Value::List(Vec::new())
        }
    }
}

fn shared(text: AtomText<'_>) -> Arc<str> {
    match text {
        AtomText::Utf8(text) => text.into(),
        AtomText::Latin1(_) => text.text().into(),
    }
}

fn big(negative: bool, magnitude: &[u8]) -> Value {
    let sign = if negative { Sign::Minus } else { Sign::Plus };
    Value::integer(BigInt::from_bytes_le(sign, magnitude))
}

fn identified(identifier: &Identifier<'_>) -> Value {
    let node = shared(identifier.node);
    let creation = identifier.creation;
    let (chunks, _) = identifier.numbers.as_chunks::<4>();
    let mut words = chunks.iter().map(|word| u32::from_be_bytes(*word));
    match identifier.kind {
        Kind::Pid => {
            let id = words.next().unwrap_or_default();
            let serial = words.next().unwrap_or_default();
            Value::Pid(Pid {
                node,
                id,
                serial,
                creation,
            })
        }
        Kind::Reference => Value::Reference(Reference {
            node,
            creation,
            words: words.collect(),
        }),
        Kind::Port => {
            let id = words.fold(0, |id, word| id << 32 | u64::from(word));
            Value::Port(Port { node, id, creation })
        }
    }
}
