//! A term as Rust users hold it: bytes that have been validated.

use super::decode::decode;
use super::scan::{Foreign, check};
use super::view::Ends;
use super::{Facts, Form, TermError, TermLimits, Value, inline, scan};
use crate::limits::MAX_TERM_DEPTH;
use bytes::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// A valid term in its encoding. Cloning it copies no bytes.
///
/// It goes out as it came in, bit by bit, and costs nothing to pass on. [`Term::view`] reads it
/// in place; [`Term::decode`] makes a value of it.
#[derive(Clone)]
pub struct Term {
    skeleton: Bytes,
    /// Never empty.
    blobs: Option<Arc<[Bytes]>>,
    /// What in it not every VM knows.
    foreign: Option<Foreign>,
    /// Where its containers end, once somebody has read a deep one in place.
    ends: OnceLock<Arc<Ends>>,
    passed: Passed,
}

/// Where the container ends that was read last, and where its first element stands: nobody has to
/// step over it again. Each is told by the bytes of the term that are left there; two numbers in
/// one, so that they always belong together.
#[derive(Debug, Default)]
struct Passed(AtomicU64);

impl Clone for Passed {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Term {
    /// A complete encoded term, checked against the default limits.
    // Inlined, and checked where it is made: to move as a whole what was just written in parts
    // stalls CPUs for longer than it takes to free a small term.
    #[inline]
    pub fn from_external(bytes: impl Into<Bytes>) -> Result<Self, TermError> {
        let mut term = Self::from_checked(bytes.into(), Vec::new(), None);
        term.check()?;
        Ok(term)
    }

    #[inline(never)]
    fn check(&mut self) -> Result<(), TermError> {
        let mut facts = Facts::default();
        let limits = TermLimits::default();
        check(&self.skeleton, Form::Whole, &limits, &mut (), &mut facts)?;
        self.foreign = facts.foreign();
        Ok(())
    }

    /// An encoded term whose large binaries stand beside it, checked against the default limits.
    /// Without any binaries the term has to be complete.
    pub fn from_parts(
        skeleton: impl Into<Bytes>,
        blobs: impl Into<Vec<Bytes>>,
    ) -> Result<Self, TermError> {
        let term = Self::from_checked(skeleton.into(), blobs.into(), None);
        let facts = scan(&term.skeleton, term.form(), &TermLimits::default(), &mut ())?;
        term.agreeing(&facts)
    }

    /// The same for a skeleton that [`scan`] has checked already, with `facts` as its result.
    pub fn from_scanned(
        skeleton: impl Into<Bytes>,
        blobs: impl Into<Vec<Bytes>>,
        facts: &Facts,
    ) -> Result<Self, TermError> {
        Self::from_checked(skeleton.into(), blobs.into(), None).agreeing(facts)
    }

    /// A whole term that [`scan`] has checked, no deeper than the default limit, and found to be
    /// [common](Facts::common).
    #[inline]
    pub(crate) fn from_common(skeleton: Bytes) -> Self {
        Self::from_checked(skeleton, Vec::new(), None)
    }

    /// The same for parts of a term that has been checked.
    #[inline]
    pub(in crate::wire) fn from_checked(
        skeleton: Bytes,
        blobs: Vec<Bytes>,
        foreign: Option<Foreign>,
    ) -> Self {
        Self {
            skeleton,
            blobs: (!blobs.is_empty()).then(|| blobs.into()),
            foreign,
            ends: OnceLock::new(),
            passed: Passed::default(),
        }
    }

    /// Refuses a term that a VM which is a peer need not know: see [`Facts::common`].
    pub fn common(&self) -> Result<(), TermError> {
        self.foreign.map_or(Ok(()), |kind| Err(kind.error()))
    }

    pub(super) fn ends(&self) -> &Ends {
        self.ends.get_or_init(|| Arc::new(Ends::of(self)))
    }

    /// Remembers that `end` bytes are left behind the container which had `first` bytes left at its
    /// first element.
    #[inline]
    pub(super) fn pass(&self, first: usize, end: usize) {
        if self.blobs.is_none() {
            let passed = (first as u64) << 32 | end as u64 & u64::from(u32::MAX);
            self.passed.0.store(passed, Ordering::Relaxed);
        }
    }

    /// What is left behind that container, if it was the last one that was passed.
    #[inline]
    pub(super) fn passed(&self, first: usize) -> Option<usize> {
        let passed = self.passed.0.load(Ordering::Relaxed);
        (passed >> 32 == first as u64 && passed != 0).then_some(passed as u32 as usize)
    }

    pub(super) fn foreign(&self) -> Option<Foreign> {
        self.foreign
    }

    fn agreeing(mut self, facts: &Facts) -> Result<Self, TermError> {
        if facts.depth > MAX_TERM_DEPTH {
            return Err(TermError::Depth(MAX_TERM_DEPTH));
        }
        self.foreign = facts.foreign();
        let lengths = self.blobs().iter().map(|blob| blob.len() as u64);
        if lengths.eq(facts.blobs.iter().map(|&length| u64::from(length))) {
            Ok(self)
        } else {
            Err(TermError::BlobMismatch)
        }
    }

    /// What it means.
    #[must_use]
    pub fn decode(&self) -> Value {
        decode(&self.skeleton, self.form(), self.blobs())
    }

    /// The complete encoding, a copy with the large binaries in their places.
    #[must_use]
    pub fn to_external(&self) -> Vec<u8> {
        if self.blobs.is_none() {
            return self.skeleton.to_vec();
        }
        // The binaries have been found to fit when the term was made.
        inline(&self.skeleton, self.blobs()).unwrap_or_default()
    }

    /// The encoded term, without large binaries if [`Self::form`] says so.
    #[must_use]
    pub fn skeleton(&self) -> &Bytes {
        &self.skeleton
    }

    /// The large binaries that the skeleton misses, in order.
    #[must_use]
    pub fn blobs(&self) -> &[Bytes] {
        self.blobs.as_deref().unwrap_or_default()
    }

    /// Whether large binaries are missing in the skeleton.
    #[must_use]
    pub fn form(&self) -> Form {
        if self.blobs.is_none() {
            Form::Whole
        } else {
            Form::Elided
        }
    }

    /// Bytes of the complete encoding.
    #[must_use]
    pub fn len(&self) -> usize {
        self.skeleton.len() + self.blobs().iter().map(Bytes::len).sum::<usize>()
    }

    /// Never: there is a version byte at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.skeleton.is_empty()
    }
}

/// Equal if the complete encodings are. One value may have several encodings.
impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        if self.form() == other.form() {
            return self.skeleton == other.skeleton && self.blobs == other.blobs;
        }
        self.len() == other.len() && self.to_external() == other.to_external()
    }
}

impl Eq for Term {}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Term({} bytes", self.len())?;
        if !self.blobs().is_empty() {
            write!(f, ", {} out of band", self.blobs().len())?;
        }
        f.write_str(")")
    }
}

impl TryFrom<&Value> for Term {
    type Error = TermError;

    fn try_from(value: &Value) -> Result<Self, TermError> {
        value.encode()
    }
}
