//! Tuples taken apart and put together without decoding what they hold.
//!
//! A program that routes terms looks at a tuple's first elements only. Here an element stays
//! encoded, and its large binaries stay where they are in memory.

use super::walk::{Token, Walker};
use super::{Form, Term, TermError, tag};
use crate::limits::{MAX_TERM_DEPTH, OUT_OF_BAND_BYTES};
use bytes::Bytes;

impl Term {
    /// The elements, if it is a tuple. Their large binaries are shared with this term.
    #[must_use]
    pub fn elements(&self) -> Option<Vec<Term>> {
        let skeleton = self.skeleton();
        if !matches!(
            skeleton.get(1),
            Some(&(tag::SMALL_TUPLE | tag::LARGE_TUPLE))
        ) {
            return None;
        }
        // The term was checked when it was made, so the walk meets no error.
        let mut walker = Walker::new(skeleton, self.form(), MAX_TERM_DEPTH).ok()?;
        let Some(Token::Tuple(arity)) = walker.next().ok()? else {
            return None;
        };
        let mut elements = Vec::with_capacity(arity as usize);
        let mut blobs = self.blobs().iter().cloned();
        let mut own: Vec<Bytes> = Vec::new();
        let mut start = walker.at();
        let mut cut = |start: usize, end: usize, own: Vec<Bytes>| {
            let body = skeleton.get(start..end)?;
            let mut bytes = Vec::with_capacity(body.len() + 1);
            bytes.push(tag::VERSION);
            bytes.extend_from_slice(body);
            elements.push(self.part(bytes, own)?);
            Some(())
        };
        let mut first = true;
        while let Some(token) = walker.next().ok()? {
            // An element of the tuple begins where the tuple is the only container around.
            if walker.level() == 1 {
                if !first {
                    cut(start, walker.start(), std::mem::take(&mut own))?;
                }
                first = false;
                start = walker.start();
            }
            match token {
                Token::Fun(fun) => walker.skip_fun(&fun),
                Token::Blob(_) => own.push(blobs.next()?),
                _ => {}
            }
        }
        if !first {
            cut(start, walker.at(), own)?;
        }
        Some(elements)
    }

    fn part(&self, bytes: Vec<u8>, blobs: Vec<Bytes>) -> Option<Term> {
        if self.foreign().is_some() {
            // Whether it is this part that is foreign, a scan tells.
            return Term::from_parts(bytes, blobs).ok();
        }
        Some(Term::from_checked(bytes.into(), blobs, None))
    }

    /// A tuple of these terms. Large binaries that stand beside them, or that have to be taken
    /// out of one of them because others stand beside another one, are not copied.
    ///
    /// # Errors
    /// If the whole exceeds a limit.
    pub fn tuple(elements: &[Term]) -> Result<Term, TermError> {
        let elided = elements.iter().any(|e| e.form() == Form::Elided);
        let size: usize = elements.iter().map(|e| e.skeleton().len()).sum();
        let mut bytes = Vec::with_capacity(size + 6);
        bytes.push(tag::VERSION);
        match u8::try_from(elements.len()) {
            Ok(arity) => bytes.extend([tag::SMALL_TUPLE, arity]),
            Err(_) => {
                let arity = u32::try_from(elements.len())
                    .map_err(|_| TermError::Unsupported("a tuple of that many elements"))?;
                bytes.push(tag::LARGE_TUPLE);
                bytes.extend_from_slice(&arity.to_be_bytes());
            }
        }
        let mut blobs = Vec::new();
        for element in elements {
            if elided && element.form() == Form::Whole {
                take_out(element.skeleton(), &mut bytes, &mut blobs)?;
            } else {
                bytes.extend_from_slice(element.skeleton().get(1..).unwrap_or_default());
                blobs.extend_from_slice(element.blobs());
            }
        }
        Term::from_parts(bytes, blobs)
    }
}

/// Appends a whole term without its version byte, and its large binaries to `blobs`.
fn take_out(term: &Bytes, bytes: &mut Vec<u8>, blobs: &mut Vec<Bytes>) -> Result<(), TermError> {
    let mut copied = 1;
    if term.len() > OUT_OF_BAND_BYTES {
        let mut walker = Walker::new(term, Form::Whole, MAX_TERM_DEPTH)?;
        while let Some(token) = walker.next()? {
            match token {
                Token::Fun(fun) => walker.skip_fun(&fun),
                // A bitstring is another token: it never travels beside the term.
                Token::Binary(binary) if binary.len() >= OUT_OF_BAND_BYTES => {
                    let end = walker.at();
                    let begin = end - binary.len();
                    bytes.extend_from_slice(term.get(copied..begin).unwrap_or_default());
                    blobs.push(term.slice(begin..end));
                    copied = end;
                }
                _ => {}
            }
        }
    }
    bytes.extend_from_slice(term.get(copied..).unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::*;

    fn large(byte: u8) -> Value {
        Value::binary(vec![byte; OUT_OF_BAND_BYTES + byte as usize])
    }

    fn check(elements: Vec<Value>) {
        let whole = Value::tuple(elements.clone()).encode().unwrap();
        let parts = whole.elements().unwrap();
        let decoded: Vec<_> = parts.iter().map(Term::decode).collect();
        assert_eq!(decoded, elements);
        assert_eq!(Term::tuple(&parts).unwrap(), whole);
    }

    #[test]
    fn tuples_come_apart_and_together() {
        check(vec![]);
        check(vec![
            Value::from(1),
            Value::tuple(vec![]),
            Value::list(vec![]),
        ]);
        check(vec![
            Value::tuple(vec![large(1), Value::Map(vec![(Value::from(1), large(2))])]),
            large(3),
            Value::list(vec![
                Value::atom("a"),
                Value::tuple(vec![Value::list(vec![large(4)])]),
            ]),
            Value::Map(vec![]),
            Value::atom("end"),
        ]);
        check((0..300).map(Value::from).collect());
    }

    #[test]
    fn binaries_are_shared() {
        let term = Value::tuple(vec![Value::atom("x"), large(1)])
            .encode()
            .unwrap();
        let parts = term.elements().unwrap();
        assert_eq!(parts[1].blobs()[0].as_ptr(), term.blobs()[0].as_ptr());
    }

    #[test]
    fn a_whole_term_joins_an_elided_one() {
        let whole = Term::from_external(
            Value::list(vec![large(5), Value::from(2)])
                .encode()
                .unwrap()
                .to_external(),
        )
        .unwrap();
        assert_eq!(whole.form(), Form::Whole);
        let elided = large(6).encode().unwrap();
        let both = Term::tuple(&[whole.clone(), elided.clone()]).unwrap();
        assert_eq!(both.blobs().len(), 2);
        assert_eq!(
            both.decode(),
            Value::tuple(vec![whole.decode(), elided.decode()])
        );
    }

    #[test]
    fn only_tuples_have_elements() {
        assert!(
            Value::list(vec![Value::from(1), Value::atom("a")])
                .encode()
                .unwrap()
                .elements()
                .is_none()
        );
    }

    #[test]
    fn funs_stay_whole() {
        let fun = Value::Fun(super::super::Opaque::export("m", "f", 2).unwrap());
        check(vec![fun, large(1)]);
    }
}
