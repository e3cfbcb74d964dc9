//! A term as the pieces that a vectored write takes.

use super::elide::each_blob;
use super::{Form, Term};
use bytes::Bytes;

impl Term {
    /// The complete encoding without the version byte, in order. No byte is copied.
    pub(crate) fn pieces(&self) -> Vec<Bytes> {
        let skeleton = self.skeleton();
        if self.form() == Form::Whole {
            return vec![skeleton.slice(skeleton.len().min(1)..)];
        }
        let mut pieces = Vec::with_capacity(2 * self.blobs().len() + 1);
        let mut blobs = self.blobs().iter();
        let mut from = 1;
        // The binaries have been found to fit when the term was made.
        let walked = each_blob(skeleton, |at, _| {
            pieces.push(skeleton.slice(from..at));
            pieces.extend(blobs.next().cloned());
            from = at;
            Ok(())
        });
        debug_assert!(walked.is_ok(), "{walked:?}");
        pieces.push(skeleton.slice(from..));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use crate::limits::OUT_OF_BAND_BYTES;

    #[test]
    fn pieces_are_the_whole_term() {
        let large = Value::binary(vec![1; OUT_OF_BAND_BYTES]);
        for value in [
            Value::from(1),
            large.clone(),
            Value::tuple(vec![large.clone(), Value::from(7), large, Value::atom("x")]),
        ] {
            let term = value.encode().unwrap();
            assert_eq!(term.pieces().concat(), term.to_external()[1..]);
        }
    }
}
