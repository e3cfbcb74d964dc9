//! Each kind of term of `eetf`, there and back.

use super::{Opaque, Term, TermError, Value};
use crate::term;
use num_bigint::BigInt;

fn atom(name: &str) -> eetf::Atom {
    eetf::Atom::from(name)
}

/// Every kind but funs with an environment, and what they are here.
fn kinds() -> Vec<(eetf::Term, Value)> {
    let integer = |value: i32| eetf::Term::from(eetf::FixInteger { value });
    let pid = eetf::Pid {
        node: atom("a@b"),
        id: 1,
        serial: 2,
        creation: 3,
    };
    let port = eetf::Port {
        node: atom("a@b"),
        id: 1 << 40,
        creation: 3,
    };
    let reference = eetf::Reference {
        node: atom("a@b"),
        id: vec![1, 2, 3],
        creation: 4,
    };
    let fun = eetf::ExternalFun {
        module: atom("lists"),
        function: atom("map"),
        arity: 2,
    };
    let big: BigInt = BigInt::from(1) << 100;
    let map = [(atom("k").into(), integer(1))].into_iter().collect();
    vec![
        (atom("ä b").into(), term!(@"ä b")),
        (integer(-1), term!(-1)),
        (
            eetf::BigInteger::from(1i64 << 40).into(),
            term!((1i64 << 40)),
        ),
        (eetf::BigInteger { value: big.clone() }.into(), big.into()),
        (eetf::Float { value: -0.5 }.into(), term!(-0.5)),
        (
            pid.into(),
            Value::Pid(super::Pid {
                node: "a@b".into(),
                id: 1,
                serial: 2,
                creation: 3,
            }),
        ),
        (
            port.into(),
            Value::Port(super::Port {
                node: "a@b".into(),
                id: 1 << 40,
                creation: 3,
            }),
        ),
        (
            reference.into(),
            super::Reference {
                node: "a@b".into(),
                creation: 4,
                words: [1, 2, 3].into(),
            }
            .into(),
        ),
        (
            fun.into(),
            Value::Fun(Opaque::export("lists", "map", 2).unwrap()),
        ),
        (
            eetf::Binary {
                bytes: vec![1, 255],
            }
            .into(),
            term!(<<1, 255>>),
        ),
        (
            eetf::BitBinary {
                bytes: vec![1, 0xa0],
                tail_bits_size: 3,
            }
            .into(),
            Value::Bits {
                bytes: vec![1, 0xa0],
                last_bits: 3,
            },
        ),
        (
            eetf::List {
                elements: vec![integer(1), atom("a").into()],
            }
            .into(),
            term!([1, a]),
        ),
        (
            eetf::ImproperList {
                elements: vec![integer(1)],
                last: Box::new(atom("a").into()),
            }
            .into(),
            term!([1 | a]),
        ),
        (
            eetf::Tuple {
                elements: vec![integer(1), eetf::List::nil().into()],
            }
            .into(),
            term!({1, []}),
        ),
        (eetf::Map { map }.into(), term!(#{k => 1})),
    ]
}

#[test]
fn each_kind_goes_there_and_back() {
    for (foreign, value) in kinds() {
        assert_eq!(Value::try_from(&foreign).unwrap(), value);
        assert_eq!(eetf::Term::try_from(&value).unwrap(), foreign);
        let term = Term::try_from(&foreign).unwrap();
        assert_eq!(term.decode(), value);
        assert_eq!(eetf::Term::try_from(&term).unwrap(), foreign);
    }
}

#[test]
fn one_kind_comes_back_as_another() {
    let bytes = eetf::ByteList {
        bytes: vec![1, 255],
    };
    let value = Value::try_from(&eetf::Term::from(bytes)).unwrap();
    assert_eq!(value, term!([1, 255]));
    assert!(matches!(
        eetf::Term::try_from(&value),
        Ok(eetf::Term::List(_))
    ));
}

#[test]
fn what_has_no_counterpart_is_refused() {
    let environment = eetf::InternalFun::Old {
        module: atom("m"),
        pid: eetf::Pid::new(atom("a@b"), 1, 2, 3),
        free_vars: Vec::new(),
        index: 0,
        uniq: 0,
    };
    let refused = Value::try_from(&eetf::Term::from(environment));
    assert!(matches!(refused, Err(TermError::Unsupported(_))));
    let refused = eetf::Term::try_from(&Value::Float(f64::NAN));
    assert_eq!(refused, Err(TermError::Float));
}
