//! Values from and to those of the `eetf` crate.
//!
//! Only its data types are used. Its own decoder can be made to abort the process and its
//! encoder corrupts some lists, so neither ever sees bytes: they go through [`Term`] and its
//! codec. Funs with an environment have no counterpart; `fun Module:Function/Arity` has.

use super::walk::{Token, Walker};
use super::{Form, Term, TermError, tag};
use super::{Opaque, Pid, Port, Reference, Value};
use crate::limits::MAX_TERM_DEPTH;
use bytes::Bytes;
use std::collections::HashMap;

const ENVIRONMENT: TermError = TermError::Unsupported("a fun with an environment");

impl TryFrom<&eetf::Term> for Value {
    type Error = TermError;

    fn try_from(term: &eetf::Term) -> Result<Self, TermError> {
        from_eetf(term, 0)
    }
}

impl TryFrom<&Value> for eetf::Term {
    type Error = TermError;

    fn try_from(value: &Value) -> Result<Self, TermError> {
        to_eetf(value, 0)
    }
}

impl TryFrom<&eetf::Term> for Term {
    type Error = TermError;

    fn try_from(term: &eetf::Term) -> Result<Self, TermError> {
        Value::try_from(term)?.encode()
    }
}

impl TryFrom<&Term> for eetf::Term {
    type Error = TermError;

    fn try_from(term: &Term) -> Result<Self, TermError> {
        (&term.decode()).try_into()
    }
}

fn deeper(depth: u32) -> Result<u32, TermError> {
    if depth < MAX_TERM_DEPTH {
        Ok(depth + 1)
    } else {
        Err(TermError::Depth(MAX_TERM_DEPTH))
    }
}

fn from_eetf(term: &eetf::Term, depth: u32) -> Result<Value, TermError> {
    let all = |terms: &[eetf::Term]| {
        let depth = deeper(depth)?;
        terms
            .iter()
            .map(|term| from_eetf(term, depth))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(match term {
        eetf::Term::Tuple(tuple) => Value::Tuple(all(&tuple.elements)?),
        eetf::Term::List(list) => Value::List(all(&list.elements)?),
        eetf::Term::ImproperList(list) => {
            let tail = from_eetf(&list.last, deeper(depth)?)?;
            Value::ImproperList(all(&list.elements)?, Box::new(tail))
        }
        eetf::Term::Map(map) => {
            let depth = deeper(depth)?;
            let pair = |(key, value)| Ok((from_eetf(key, depth)?, from_eetf(value, depth)?));
            Value::Map(map.map.iter().map(pair).collect::<Result<_, TermError>>()?)
        }
        leaf => leaf_from_eetf(leaf)?,
    })
}

fn leaf_from_eetf(term: &eetf::Term) -> Result<Value, TermError> {
    Ok(match term {
        eetf::Term::Atom(atom) => Value::atom(&atom.name),
        eetf::Term::FixInteger(number) => number.value.into(),
        eetf::Term::BigInteger(number) => Value::integer(number.value.clone()),
        eetf::Term::Float(number) => Value::Float(number.value),
        eetf::Term::Pid(pid) => Value::Pid(Pid {
            node: pid.node.name.as_str().into(),
            id: pid.id,
            serial: pid.serial,
            creation: pid.creation,
        }),
        eetf::Term::Port(port) => Value::Port(Port {
            node: port.node.name.as_str().into(),
            id: port.id,
            creation: port.creation,
        }),
        eetf::Term::Reference(reference) => Reference {
            node: reference.node.name.as_str().into(),
            creation: reference.creation,
            words: reference.id.as_slice().try_into()?,
        }
        .into(),
        eetf::Term::ExternalFun(fun) => Value::Fun(Opaque::export(
            &fun.module.name,
            &fun.function.name,
            fun.arity,
        )?),
        eetf::Term::Binary(binary) => Value::binary(binary.bytes.clone()),
        eetf::Term::BitBinary(bits) => Value::Bits {
            bytes: bits.bytes.clone(),
            last_bits: bits.tail_bits_size,
        },
        eetf::Term::ByteList(list) => Value::List(
            list.bytes
                .iter()
                .map(|&byte| Value::Integer(byte.into()))
                .collect(),
        ),
        eetf::Term::InternalFun(_) => return Err(ENVIRONMENT),
        _ => return Err(TermError::Unsupported("a container at this place")),
    })
}

fn to_eetf(value: &Value, depth: u32) -> Result<eetf::Term, TermError> {
    let all = |values: &[Value]| {
        let depth = deeper(depth)?;
        values
            .iter()
            .map(|value| to_eetf(value, depth))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(match value {
        Value::Tuple(elements) => eetf::Tuple {
            elements: all(elements)?,
        }
        .into(),
        Value::List(elements) => eetf::List {
            elements: all(elements)?,
        }
        .into(),
        Value::ImproperList(elements, tail) => {
            let last = Box::new(to_eetf(tail, deeper(depth)?)?);
            eetf::ImproperList {
                elements: all(elements)?,
                last,
            }
            .into()
        }
        Value::Map(pairs) => {
            let depth = deeper(depth)?;
            let mut map = HashMap::with_capacity(pairs.len());
            for (key, value) in pairs {
                map.insert(to_eetf(key, depth)?, to_eetf(value, depth)?);
            }
            eetf::Map { map }.into()
        }
        leaf => leaf_to_eetf(leaf)?,
    })
}

fn leaf_to_eetf(value: &Value) -> Result<eetf::Term, TermError> {
    let atom = |name: &str| eetf::Atom {
        name: name.to_owned(),
    };
    Ok(match value {
        Value::Atom(name) => atom(name.as_str()).into(),
        Value::Integer(number) => match i32::try_from(*number) {
            Ok(value) => eetf::FixInteger { value }.into(),
            Err(_) => eetf::BigInteger::from(*number).into(),
        },
        Value::BigInteger(number) => eetf::BigInteger {
            value: number.clone(),
        }
        .into(),
        Value::Float(number) if number.is_finite() => eetf::Float { value: *number }.into(),
        Value::Float(_) => return Err(TermError::Float),
        Value::Binary(bytes) => eetf::Binary {
            bytes: bytes.to_vec(),
        }
        .into(),
        Value::Bits { bytes, last_bits } => eetf::BitBinary {
            bytes: bytes.to_vec(),
            tail_bits_size: *last_bits,
        }
        .into(),
        Value::Pid(pid) => eetf::Pid {
            node: atom(&pid.node),
            id: pid.id,
            serial: pid.serial,
            creation: pid.creation,
        }
        .into(),
        Value::Port(port) => eetf::Port {
            node: atom(&port.node),
            id: port.id,
            creation: port.creation,
        }
        .into(),
        Value::Reference(reference) => eetf::Reference {
            node: atom(&reference.node),
            id: reference.words.to_vec(),
            creation: reference.creation,
        }
        .into(),
        Value::Fun(fun) => exported(fun.as_bytes())?,
        Value::Record(_) => return Err(TermError::Unsupported("a native record")),
        Value::Local(_) => return Err(TermError::Unsupported("a term in a private encoding")),
        _ => return Err(TermError::Unsupported("a container at this place")),
    })
}

fn exported(fun: &Bytes) -> Result<eetf::Term, TermError> {
    let term = [&[tag::VERSION], &fun[..]].concat();
    match Walker::new(&term, Form::Whole, MAX_TERM_DEPTH)?.next()? {
        Some(Token::Export {
            module,
            function,
            arity,
        }) => Ok(eetf::ExternalFun {
            module: eetf::Atom {
                name: module.text().into_owned(),
            },
            function: eetf::Atom {
                name: function.text().into_owned(),
            },
            arity,
        }
        .into()),
        _ => Err(ENVIRONMENT),
    }
}
