//! Where a value is to stay.
//!
//! The common kinds have functions of their own that are not inlined. Otherwise the compiler
//! makes one move, from the stack, of all of them: what was just written in parts is read back as
//! a whole, on which CPUs stall for longer than all the rest takes.

use super::super::binary::{Binary, INLINE};
use super::super::{Atom, Pid, Reference, Value};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// A place that one value goes to.
pub(super) trait Place: Sized {
    fn put(self, make: impl FnOnce() -> Value);

    #[inline(never)]
    fn integer(self, number: i64) {
        self.put(|| Value::Integer(number));
    }

    #[inline(never)]
    fn atom(self, atom: &Atom) {
        self.put(|| Value::Atom(atom.clone()));
    }

    #[inline(never)]
    fn short(self, start: &[u8; INLINE], length: usize) {
        self.put(|| Value::Binary(Binary::start_of(start, length)));
    }

    #[inline(never)]
    fn binary(self, source: &Bytes, place: Range<usize>) {
        self.put(|| Value::Binary(source.slice(place).into()));
    }

    #[inline(never)]
    fn tuple(self, elements: Box<[Value]>) {
        self.put(|| Value::Tuple(elements.into_vec()));
    }

    #[inline(never)]
    fn list(self, elements: Box<[Value]>) {
        self.put(|| Value::List(elements.into_vec()));
    }

    #[inline(never)]
    fn pid(self, node: Arc<str>, numbers: [u32; 3]) {
        let [id, serial, creation] = numbers;
        self.put(|| {
            Value::Pid(Pid {
                node,
                id,
                serial,
                creation,
            })
        });
    }

    #[inline(never)]
    fn reference(self, reference: Box<Reference>) {
        self.put(|| Value::Reference(reference));
    }
}

impl Place for &mut Vec<Value> {
    #[inline]
    fn put(self, make: impl FnOnce() -> Value) {
        // `push` takes a value that has been made already, on the stack, since it may have to
        // make room first.
        self.extend(std::iter::once_with(make));
    }
}

impl Place for &mut Value {
    #[inline]
    fn put(self, make: impl FnOnce() -> Value) {
        *self = make();
    }
}
