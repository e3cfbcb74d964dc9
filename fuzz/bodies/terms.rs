//! Terms: what the scan lets through must be safe for everything that comes after it.

use bytes::Bytes;
use partisan::wire::identity::Identity;
use partisan::wire::term::{
    AtomGate, Form, Inbound, Outbound, RefFormat, Term, TermLimits, elide, inline, map_in, map_out,
    scan,
};

struct Count(u32);

impl AtomGate for Count {
    fn admit(&mut self, atom: &str) -> bool {
        assert!(atom.chars().count() <= 255);
        self.0 += 1;
        self.0 <= 1000
    }
}

/// First byte: bit 0 elided; bits 1 and 2 the format of remote references; bit 3 padding.
pub fn run(data: &[u8]) {
    let Some((&mode, term)) = data.split_first() else {
        return;
    };
    let limits = TermLimits {
        heap_bytes: 1 << 20,
        ..TermLimits::default()
    };
    let form = if mode & 1 == 0 {
        Form::Whole
    } else {
        Form::Elided
    };
    let facts = match scan(term, form, &limits, &mut Count(0)) {
        Ok(facts) => facts,
        Err(e) => {
            let _ = e.to_string();
            // What is not for the VM is not for Rust users either, unless only for its cost.
            let _ = Term::from_external(term.to_vec())
                .map(|term| assert_eq!(term.view().to_value(), term.decode()));
            return;
        }
    };
    assert!(facts.heap_words <= limits.heap_bytes / 8);
    map(term, form, mode);
    if form == Form::Elided {
        if facts.blobs.iter().map(|&b| u64::from(b)).sum::<u64>() < 1 << 18 {
            let blobs: Vec<Bytes> = facts
                .blobs
                .iter()
                .map(|&length| Bytes::from(vec![b'x'; length as usize]))
                .collect();
            let whole = inline(term, &blobs).expect("blobs of the right lengths");
            let parts = Term::from_parts(term.to_vec(), blobs.clone()).expect("scanned");
            if !blobs.is_empty() {
                assert_eq!(parts.to_external(), whole);
            }
            round(&whole);
        }
        return;
    }
    round(term);
}

/// Decoding and encoding again loses nothing.
fn round(external: &[u8]) {
    let term = Term::from_external(external.to_vec()).expect("scanned");
    assert_eq!(term.to_external(), external);
    let value = term.decode();
    let again = value.encode().expect("a decoded value can be encoded");
    let whole = again.to_external();
    scan(&whole, Form::Whole, &TermLimits::default(), &mut ()).expect("our own encoding");
    // Not `==`: a value may hold a NaN only if it was made here.
    assert_eq!(again.decode(), value);
    // As an I/O vector that has large binaries as parts of their own.
    let (mut parts, mut rest) = (Vec::new(), &whole[..]);
    for blob in again.blobs() {
        let at = rest.windows(blob.len()).position(|piece| piece == blob);
        let (before, after) = rest.split_at(at.expect("the blob is in the term"));
        parts.extend([Bytes::copy_from_slice(before), blob.clone()]);
        rest = &after[blob.len()..];
    }
    parts.push(Bytes::copy_from_slice(rest));
    let elided = elide(&parts);
    let joined = match elided.form {
        Form::Whole => elided.skeleton,
        Form::Elided => inline(&elided.skeleton, &elided.blobs).expect("our own blobs"),
    };
    assert_eq!(joined, whole);
    let _ = format!("{value:?}");
}

fn map(term: &[u8], form: Form, mode: u8) {
    let formats = [
        None,
        Some(RefFormat::ImproperList),
        Some(RefFormat::Uri),
        Some(RefFormat::Tuple),
    ];
    let format = formats[usize::from(mode >> 1) % 4];
    let vm = Identity::new("nonode@nohost", 0);
    let wire = Identity::new("a@host", 42);
    let rules = Outbound {
        own: vec![vm.clone()],
        wire: wire.clone(),
        pids: format,
        refs: format,
        uri_padding: mode & 8 != 0,
    };
    let mut out = Vec::new();
    // Fails only if the result would break a limit.
    if map_out(term, form, &rules, &mut out).is_ok() {
        scan(&out, form, &TermLimits::default(), &mut ()).expect("mapped out");
        let mut back = Vec::new();
        let rules = Inbound { wire, local: vm };
        if map_in(&out, form, &rules, &mut back).is_ok() {
            scan(&back, form, &TermLimits::default(), &mut ()).expect("mapped in");
        }
    }
}
